"""Vision models of transformers with norms of running statistics, in configurations as small as they can be."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_FOUR = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
_RESNET = {"embedding_size": 8, **_FOUR}
_ATTENTION = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
_VIT = {**_ATTENTION, "image_size": 64, "patch_size": 16}
_HGNET = {
    "embedding_size": 8,
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 8, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 8, 16, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    **_FOUR,
}
_DETECTOR = {
    "d_model": 16,
    "num_queries": 5,
    **{f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 16))},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
}
_REAL_TIME = {
    **_DETECTOR,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "decoder_in_channels": [16, 16, 16],
}
_LAST_THREE = ["stage2", "stage3", "stage4"]
_BASIC = {**_RESNET, "layer_type": "basic", "out_features": _LAST_THREE}

# Class -> the options of its configuration.
_PLAIN: dict[str, dict[str, Any]] = {
    "MobileNetV1Model": {"depth_multiplier": 0.25},
    "MobileNetV2Model": {"depth_multiplier": 0.25},
    "MobileViTModel": {
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64],
        "num_attention_heads": 2,
    },
    "MobileViTV2Model": {"width_multiplier": 0.25},
    "ResNetModel": _RESNET,
    "RegNetModel": {"groups_width": 4, **_RESNET},
    "LevitModel": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "key_dim": [8, 8, 8],
        "depths": [1, 1, 1],
    },
    "EfficientNetModel": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 32},
    "AlignVisionModel": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 32},
    "SegformerForSemanticSegmentation": {"decoder_hidden_size": 16, "num_attention_heads": [1, 1, 2, 2], **_FOUR},
    "SwiftFormerModel": {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]},
    "CvtModel": {"embed_dim": [8, 16, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
    "HGNetV2Backbone": _HGNET,
    "TextNetModel": {},
    "BeitForSemanticSegmentation": {**_VIT, "out_indices": [1, 2, 3, 4]},
    "Data2VecVisionForSemanticSegmentation": {**_VIT, "out_indices": [0, 1, 2, 3]},
    "DPTForSemanticSegmentation": {
        **_VIT,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "use_batch_norm_in_fusion_residual": True,
    },
    "EfficientLoFTRModel": {},
    "PatchTSTModel": {
        "context_length": 32,
        "patch_length": 8,
        "patch_stride": 8,
        "d_model": 16,
        "num_attention_heads": 2,
        "ffn_dim": 16,
        "num_hidden_layers": 2,
    },
    "Wav2Vec2ConformerModel": {
        **_ATTENTION,
        "conv_dim": [8, 8],
        "conv_stride": [2, 2],
        "conv_kernel": [3, 3],
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    },
}
# Class -> the options of its configuration, the configuration of its backbone, and the options of that.
_ON_A_BACKBONE: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "UperNetForSemanticSegmentation": (
        {"hidden_size": 16, "auxiliary_in_channels": 16, "auxiliary_channels": 16, "pool_scales": [1, 2]},
        "ResNetConfig",
        {**_RESNET, "out_features": ["stage1", *_LAST_THREE]},
    ),
    "VitPoseForPoseEstimation": (
        {"use_simple_decoder": False},
        "VitPoseBackboneConfig",
        {**_VIT, "image_size": [64, 64], "patch_size": [16, 16], "out_indices": [4]},
    ),
    "VitMatteForImageMatting": (
        {"hidden_size": 16, "fusion_hidden_sizes": [16, 8, 8, 8], "convstream_hidden_sizes": [8, 8, 8]},
        "VitDetConfig",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64},
    ),
    "DetrModel": (
        {"use_timm_backbone": False, **_DETECTOR},
        "ResNetConfig",
        {**_RESNET, "out_features": ["stage4"]},
    ),
    "RTDetrModel": (_REAL_TIME, "RTDetrResNetConfig", _BASIC),
    "RTDetrV2Model": (
        _REAL_TIME,
        "RTDetrResNetConfig",
        {**_RESNET, "layer_type": "basic", "out_features": _LAST_THREE},
    ),
    "DFineModel": ({**_REAL_TIME, "hidden_expansion": 0.5}, "HGNetV2Config", {**_HGNET, "out_features": _LAST_THREE}),
}


def _plain(name: str, options: dict[str, Any]) -> nn.Module:
    cls: Any = getattr(import_module("transformers"), name)
    model: nn.Module = cls(cls.config_class(**options))
    return model


def _on_a_backbone(name: str, options: dict[str, Any], backbone: str, of_backbone: dict[str, Any]) -> nn.Module:
    config: Any = getattr(import_module("transformers"), backbone)
    return _plain(name, {**options, "backbone_config": config(**of_backbone)})


def builders() -> dict[str, Callable[[], nn.Module]]:
    """A function for each model, by name."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name, options in _PLAIN.items():
        found[f"transformers/{name}"] = partial(_plain, name, options)
    for name, given in _ON_A_BACKBONE.items():
        found[f"transformers/{name}"] = partial(_on_a_backbone, name, *given)
    return found
