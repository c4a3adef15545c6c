"""A model that keeps its class: its traced modules run kernels, all else is as it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse, lower
from fxfuse.cli.models import randomize

from .models import Block, Net, gap, image

FELL_BACK = "ran as the fused one does"


class Branching(nn.Module):
    """A model that branches on its input, around parts that can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Net()
        self.stem.fc = nn.Identity()  # type: ignore[assignment]
        self.head = nn.Linear(16, 4)
        self.calls = 0

    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        self.calls += 1
        y = self.stem(x)
        if y.sum() > 1e6:
            y = y / 2
        return {"scores": self.head(y) * scale}

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x)


def kept() -> Any:
    torch.manual_seed(0)
    model = Branching().eval()
    randomize(model)
    return fx_fuse(model)


def scores(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(x)["scores"]
    return found


def test_a_model_keeps_its_class_and_its_parts_run_kernels() -> None:
    fused = kept()
    fast = lower(fused, image())
    assert isinstance(fast, Branching)
    kernels = Report.of(fast).kernels  # type: ignore[attr-defined]
    assert {one.path: one.takes for one in kernels}["stem.blocks.0.conv2"] == ("sum", "relu")
    assert list(fast.state_dict()) == list(fused.state_dict())
    for shape in ((2, 3, 32, 32), (1, 3, 48, 40)):
        for _ in range(2):
            assert gap(scores(fast, image(*shape)), scores(fused, image(*shape))) < 2e-6
    with torch.no_grad():
        assert gap(fast(image(), scale=2.0)["scores"], 2 * scores(fused, image())) < 2e-6
        assert gap(fast.features(image()), fused.features(image())) < 2e-6
    assert type(fused.stem) is not type(fast.stem)


def test_its_weights_and_modes_are_its_own() -> None:
    fused = kept()
    fast, x = lower(fused), image()
    before = scores(fused, x)
    fast.load_state_dict({name: 2 * tensor for name, tensor in copy.deepcopy(fast.state_dict()).items()})
    for _ in range(2):
        assert gap(scores(fast, x), scores(fused, x)) < 2e-6  # tensors are shared
    assert gap(scores(fast, x), before) > 1e-3
    fast.double()
    assert scores(fused, x).dtype == torch.float32
    with pytest.warns(UserWarning, match=FELL_BACK):
        found = scores(fast, x.double())
    assert torch.equal(found, scores(fast, x.double()))
    assert gap(found.float(), scores(fused, x)) < 1e-5
    assert fused.train().training
    assert not fast.stem.training


def test_a_replaced_layer_is_seen() -> None:
    fast, x = lower(kept(), image()), image()
    before = scores(fast, x)
    fast.stem.blocks[1].conv1 = nn.Conv2d(8, 16, 3, 2, 1)
    fast.stem.blocks[1].conv1.weight.data.normal_()
    plain = fast.stem.blocks(fast.stem.pool(fast.stem.stem(x))).mean((2, 3))
    for _ in range(2):
        assert gap(fast.features(x), plain) < 2e-6
    assert gap(scores(fast, x), before) > 1e-3


def test_copies_and_pickles_make_kernels_of_their_own() -> None:
    fast, x = lower(kept(), image()), image()
    expected = scores(fast, x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        scores(other, x)
        assert torch.equal(scores(other, x), expected)
        for parameter in other.parameters():
            parameter.data.zero_()
        assert not scores(other, x).any()
    assert torch.equal(scores(fast, x), expected)


def test_a_part_in_training_mode_with_gradients_or_traced() -> None:
    fast, x = lower(kept(), image()), image()
    with pytest.raises(FuseError, match="requires gradients"):
        fast.stem(x.clone().requires_grad_())
    exported: Any = torch.export.export(fast.stem, (x,)).module()
    traced = torch.fx.symbolic_trace(fast.stem)
    compiled = torch.compile(fast.stem, backend="eager")
    with torch.no_grad():
        for other in (exported, traced, compiled):
            assert gap(other(x), fast.stem(x)) < 2e-6
    fast.stem.train()
    with pytest.warns(UserWarning, match=FELL_BACK):
        assert gap(fast.stem(x), fast.stem.eval()(x)) < 1e-5


def test_hooks_inside_of_a_part_run() -> None:
    fast, x, seen = lower(kept(), image()), image(), []
    fast.stem.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(UserWarning, match=FELL_BACK):
        scores(fast, x)
    assert seen == [1]


def test_small_parts_are_no_use() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) if x.sum() > 0 else x

    with pytest.raises(FuseError, match="3 layers or more"):
        lower(fx_fuse(Small().eval()))


def test_structure_module_of_what_can_be_traced() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(3, 8), Block(8, 8)).eval()
    randomize(model)
    fused = fx_fuse(model, structure="module")
    fast, x = lower(fused, image()), image()
    assert isinstance(fast, nn.Sequential)
    with torch.no_grad():
        for _ in range(2):
            assert gap(fast(x), fused(x)) < 2e-6
