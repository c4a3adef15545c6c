"""Hazard 30: what users reach for on the model is on the result: attributes, methods, hooks, and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import (
    Model,
    Structure,
    assert_equal,
    assert_fuses,
    assert_same,
    folds,
    trained,
    unchanged,
    values,
)

if TYPE_CHECKING:
    from fxfuse.capture.hooks import Hooks

INPUTS = (2, 3, 6, 6)


class Net(Model):
    """What users write into their models, beside layers."""

    names = ("cat", "dog")

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()

    def label(self, index: int) -> str:
        return f"{self.prefix}{self.names[index]}"

    def predict(self, x: Tensor) -> Tensor:
        return self(x).argmax(1)

    @property
    def stride(self) -> int:
        return 2 * self.scale

    @staticmethod
    def halved(x: Tensor) -> Tensor:
        return x / 2

    @classmethod
    def title(cls) -> str:
        return " and ".join(cls.names)

    def raw(self, x: Tensor) -> Tensor:
        return self.head(x)


def layers() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)}


def net(cls: type[Model] = Net, **more: Any) -> Any:
    return trained(cls(**layers(), **more))


def attributes() -> dict[str, Any]:
    return {"prefix": "a ", "scale": 3, "config": {"width": [4, 5]}, "dtype": torch.float64}


# -- attributes and methods


@pytest.mark.parametrize("name", ["prefix", "scale", "config", "dtype", "names"])
def test_an_attribute_of_the_model_is_kept(structure: Structure, name: str) -> None:
    model = net(**attributes())
    fused: Any = assert_fuses(model, values(*INPUTS), folded=["bn"], structure=structure)
    assert getattr(fused, name) == getattr(model, name)


def test_methods_that_use_no_layer_are_kept(structure: Structure) -> None:
    model, inputs = net(**attributes()), values(*INPUTS)
    fused: Any = assert_fuses(model, inputs, folded=["bn"], structure=structure)
    assert fused.label(1) == "a dog"
    assert torch.equal(fused.predict(inputs), model.predict(inputs))
    assert fused.stride == 6
    assert torch.equal(fused.halved(inputs), inputs / 2)
    assert fused.title() == "cat and dog"


def test_a_method_follows_the_attributes_of_the_result(structure: Structure) -> None:
    fused: Any = assert_fuses(net(**attributes()), values(*INPUTS), folded=["bn"], structure=structure)
    fused.prefix, fused.scale = "the ", 5
    assert fused.label(0) == "the cat"
    assert fused.stride == 10


def test_a_method_that_uses_a_layer_is_kept_with_the_class() -> None:
    model = net(head=nn.Conv2d(3, 2, 1))
    fused: Any = assert_fuses(model, values(*INPUTS), folded=["bn"], structure="module")
    assert isinstance(fused, Net)
    inputs = values(*INPUTS)
    with torch.no_grad():
        assert_equal(model.raw(inputs), fused.raw(inputs))


def test_a_method_that_a_graph_cannot_keep_is_named() -> None:
    fused = assert_fuses(net(head=nn.Conv2d(3, 2, 1)), values(*INPUTS), folded=["bn"], structure="graph")
    assert not hasattr(fused, "raw")
    assert "raw" in str(Report.of(fused))


def test_everything_that_a_graph_does_not_keep_is_named() -> None:
    model = net(**attributes(), head=nn.Conv2d(3, 2, 1))
    fused = assert_fuses(model, values(*INPUTS), folded=["bn"], structure="graph")
    wanted = [name for name in (*vars(Net), *attributes()) if not name.startswith("_")]
    assert [n for n in wanted if not hasattr(fused, n) and n not in str(Report.of(fused))] == []


def test_an_attribute_that_is_not_set_is_an_attribute_error(structure: Structure) -> None:
    fused = assert_fuses(net(), values(*INPUTS), folded=["bn"], structure=structure)
    with pytest.raises(AttributeError, match="missing"):
        _ = fused.missing


def test_the_name_of_the_class_is_kept(structure: Structure) -> None:
    fused = assert_fuses(net(), values(*INPUTS), folded=["bn"], structure=structure)
    assert type(fused).__name__ == "Net"
    assert isinstance(fused, Net) == (structure == "module")


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_layer_is_kept(structure: Structure, *, training: bool) -> None:
    model = nn.Sequential(net(), nn.Conv2d(4, 4, 3), nn.ReLU()).double().eval()
    model.training = model[1].training = training
    fused = assert_fuses(model, values(2, 3, 8, 8), folded=["0.bn"], structure=structure)
    before = {path: module.training for path, module in model.named_modules()}
    after = {path: module.training for path, module in fused.named_modules()}
    assert after == {path: before[path] for path in after}


def test_a_hook_on_the_state_of_the_model_is_kept(structure: Structure) -> None:
    model = net()
    model.register_state_dict_post_hook(
        lambda _module, state, prefix, _meta: state.update({prefix + "more": values(1)})
    )
    fused = assert_fuses(model, values(*INPUTS), folded=["bn"], structure=structure)
    assert "more" in fused.state_dict()


def test_a_hook_with_keywords_is_kept(structure: Structure) -> None:
    model = net()
    model.register_forward_pre_hook(lambda _module, args, kwargs: (args, {"x": kwargs["x"] * 2}), with_kwargs=True)
    x = values(*INPUTS)
    ways: list[tuple[Hooks, list[str]]] = [("keep", []), ("observe", ["bn"])]
    for hooks, folded in ways:
        fused = fx_fuse(model, structure=structure, hooks=hooks)
        with torch.no_grad():
            assert_equal(model(x=x), fused(x=x))
        assert folds(fused) == folded


# -- the state


def test_the_names_in_the_state_are_those_of_the_layers_that_stay(structure: Structure) -> None:
    model = trained(
        nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 2, 1))
    )
    fused = assert_fuses(model, values(*INPUTS), folded=["0.1"], structure=structure)
    assert list(fused.state_dict()) == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]
    assert Report.of(fused).renamed == {}


def test_a_state_can_be_loaded_into_another_result(structure: Structure) -> None:
    one, other = net(), net()
    fused, target = (fx_fuse(model, structure=structure) for model in (one, other))
    with unchanged(other):
        target.load_state_dict(fused.state_dict())
    assert_same(one, target, values(*INPUTS))


def test_parameters_keep_their_order(structure: Structure) -> None:
    model = trained(nn.Sequential(net(), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), net(conv2=nn.Conv2d(4, 4, 1)).conv2))
    fused = assert_fuses(model, values(*INPUTS), folded=["0.bn"], structure=structure)
    kept = [name for name, _ in model.named_parameters() if ".bn." not in name]
    assert [name for name, _ in fused.named_parameters()] == kept
