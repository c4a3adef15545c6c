"""Hazards 14, 15: a hook may compute a parameter before each call; torch's own do nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fxfuse import Reason, fx_fuse, refold
from tests.hazards.blocks import Functional
from tests.support.helpers import (
    Model,
    Structure,
    assert_fuses,
    assert_same,
    folds,
    reasons,
    trained,
    unchanged,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore:`?torch.nn.utils.weight_norm:FutureWarning")


def functional(**more: nn.Parameter) -> Any:
    return Functional(weight=nn.Parameter(values(4, 3, 1, 1)), gain=nn.Parameter(values(4, 1, 1)), **more)


def pruned() -> Any:
    return prune.l1_unstructured(functional(), "weight", 0.5)


def written() -> Any:
    """The hook writes into the parameter itself."""
    module = functional(raw=nn.Parameter(values(4, 3, 1, 1)))

    def write(inner: Any, _: Any) -> None:
        inner.weight.data.copy_(inner.raw.data.sign())

    module.register_forward_pre_hook(write)
    return module


class Halved(prune.RandomUnstructured):
    """A method of pruning that does more than to choose a mask."""

    def apply_mask(self, module: nn.Module) -> Tensor:
        halved: Tensor = super().apply_mask(module) / 2  # type: ignore[no-untyped-call] # torch's
        return halved


class Chosen(prune.RandomUnstructured):
    """One that chooses another mask."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * (t > 0)


def halved() -> Any:
    module = functional()
    Halved.apply(module, "weight", 0.5)  # type: ignore[no-untyped-call] # torch's
    return module


class Untraceable(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.sum() < 1e9 else x


WITHIN = [lambda m: nn.Sequential(m, nn.ReLU()), lambda m: Untraceable(block=m)]


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("make", [written, halved])
@pytest.mark.parametrize("within", WITHIN)
def test_a_parameter_that_a_hook_computes_is_left(
    structure: Structure, make: Callable[[], Any], within: Callable[[Any], nn.Module], example: bool
) -> None:
    model, inputs = trained(within(make())), values(2, 3, 6, 6)
    model(inputs)  # the hook has run once, as in every model that was used
    chosen = None if isinstance(model, Untraceable) else structure
    with unchanged(model):
        fused = fx_fuse(model, inputs if example else None, structure=chosen)
    assert folds(fused) == []
    assert_same(model, fused, inputs)


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("within", [*WITHIN, lambda m: m])
def test_a_parameter_that_torch_prunes_is_a_constant(
    structure: Structure, within: Callable[[Any], nn.Module], example: bool
) -> None:
    model, inputs = trained(within(pruned())), values(2, 3, 6, 6)
    chosen = None if isinstance(model, Untraceable) else structure
    with unchanged(model):
        fused = fx_fuse(model, inputs if example else None, structure=chosen)
    assert len(folds(fused)) >= 1
    assert not any(module._forward_pre_hooks for module in fused.modules())
    assert not any(name.endswith(("_orig", "_mask")) for name in fused.state_dict())
    assert_same(model, fused, inputs)


def pair(layer: nn.Module) -> Any:
    return trained(nn.Sequential(layer, nn.BatchNorm2d(4)))


def twice_pruned(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "bias", 0.5)
    prune.l1_unstructured(layer, "weight", 0.3)
    pruned: nn.Module = prune.ln_structured(layer, "weight", 0.3, 2, 0)
    return pruned


def chosen(layer: nn.Module) -> nn.Module:
    Chosen.apply(layer, "weight", 0.5)  # type: ignore[no-untyped-call] # torch's
    return layer


COMPUTED = [
    nn.utils.weight_norm,
    lambda m: nn.utils.weight_norm(m, dim=-1),
    lambda m: nn.utils.weight_norm(nn.utils.weight_norm(m), "bias", -1),
    nn.utils.spectral_norm,
    lambda m: nn.utils.spectral_norm(m, dim=1),
    twice_pruned,
    chosen,
]


@pytest.mark.parametrize("compute", COMPUTED)
def test_a_weight_that_a_hook_of_torchs_computes_takes_the_norm(structure: Structure, compute: Any) -> None:
    model = pair(compute(nn.Conv2d(3, 4, 3)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert sorted(fused.state_dict()) == ["0.bias", "0.weight"]
    assert not any(module._forward_pre_hooks for module in fused.modules())


LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(3, 4), (2, 3)),
    (lambda: nn.Conv1d(3, 4, 2), (2, 3, 6)),
    (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 6, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_whatever_layer_it_is_the_weight_is_computed_once(
    layer: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = nn.Sequential(nn.utils.weight_norm(layer())).double().eval()
    fused = fx_fuse(model)
    assert sorted(fused.state_dict()) == ["0.bias", "0.weight"]
    assert_same(model, fused, values(*shape))


def test_the_weight_of_a_norm_may_be_pruned(structure: Structure) -> None:
    norm = prune.random_unstructured(nn.BatchNorm2d(4), "weight", 0.5)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


def test_the_weight_is_that_of_now_and_not_of_the_last_call(structure: Structure) -> None:
    model, inputs = pair(nn.utils.weight_norm(nn.Conv2d(3, 4, 3))), values(2, 3, 6, 6)
    with torch.no_grad():
        model[0].weight_g.mul_(3)  # what the hook left in ``weight`` is old
    for example in (None, inputs):
        fused = fx_fuse(model, example, structure=structure)
        assert folds(fused) == ["1"]
        assert_same(model, fused, inputs)


def test_other_values_are_folded_anew(structure: Structure) -> None:
    model, inputs = pair(nn.utils.weight_norm(nn.Conv2d(3, 4, 3))), values(2, 3, 6, 6)
    fused = fx_fuse(model, structure=structure)
    with torch.no_grad():
        model[0].weight_g.mul_(3)
    assert_same(model, refold(fused, model.state_dict()), inputs)


def looked_at(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("compute", [nn.utils.weight_norm, nn.utils.spectral_norm, twice_pruned])
def test_a_hook_of_the_users_beside_it_keeps_the_norm(structure: Structure, compute: Any) -> None:
    model = pair(looked_at(compute(nn.Conv2d(3, 4, 3))))
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.HOOKED}, structure=structure)


@pytest.mark.parametrize("compute", [nn.utils.weight_norm, nn.utils.spectral_norm, twice_pruned])
def test_in_training_mode_the_norm_stays(structure: Structure, compute: Any) -> None:
    model = pair(compute(nn.Conv2d(3, 4, 3)))
    model[0].train()
    assert reasons(fx_fuse(model, structure=structure)) == {("1", Reason.HOOKED)}
