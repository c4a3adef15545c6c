"""Hazards 13, 14, 15: subclasses, parametrizations and hooks: layers that are not what their class says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations

from fxfuse import Reason, fx_fuse
from tests.support.helpers import Structure, assert_fuses, assert_same, folds, reasons, trained, unchanged, values


class NormWithActivation(nn.BatchNorm2d):
    """Its forward ends in an activation, which must stay."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        training, mean, var = self.training, self.running_mean, self.running_var
        y = F.batch_norm(input, mean, var, self.weight, self.bias, training, self.momentum or 0.0, self.eps)
        return F.silu(y)


class NormThenSuper(nn.BatchNorm2d):
    """The same by a call of the base class, which checks the axes of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        return F.silu(super().forward(input))


class StandardisedConv(nn.Conv2d):
    """Its weight is computed from the parameter at every call."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = self.weight.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(input, (self.weight - mean) / (std + 1e-5), self.bias, self.stride, self.padding)


class ConvThatRectifies(nn.Conv2d):
    """There is an activation between its convolution and what follows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        return F.relu(F.conv2d(input, self.weight, self.bias))


class ConvWithOtherArithmetic(nn.Conv2d):
    """Its class is a convolution's, its forward is not."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return super()._conv_forward(input, weight, bias).relu()


class ConvWithAnotherMethod(nn.Conv2d):
    """It does what its base does."""

    def extra_repr(self) -> str:
        return "mine"

    def fan_out(self) -> int:
        return self.out_channels


def pair(conv: nn.Module, norm: nn.Module | None = None) -> nn.Sequential:
    return trained(nn.Sequential(conv, norm or nn.BatchNorm2d(4)))


def test_a_norm_with_an_activation_leaves_the_activation(structure: Structure) -> None:
    model = pair(nn.Conv2d(3, 4, 3), NormWithActivation(4))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


def test_a_norm_that_calls_its_base_and_an_activation_is_never_dropped(structure: Structure) -> None:
    model = pair(nn.Conv2d(3, 4, 3), NormThenSuper(4))
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)


def test_a_standardised_convolution_takes_the_norm_into_its_standardised_weight(structure: Structure) -> None:
    fused = assert_fuses(pair(StandardisedConv(3, 4, 3)), values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert sum(p.numel() for p in fused.parameters()) == 4 * 3 * 3 * 3 + 4


def test_a_standardised_convolution_alone_is_standardised_once(structure: Structure) -> None:
    model = nn.Sequential(StandardisedConv(3, 4, 3), nn.ReLU()).double().eval()
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["0"], structure=structure)
    assert "std" not in fx.symbolic_trace(fused).code


@pytest.mark.parametrize("cls", [ConvThatRectifies, ConvWithOtherArithmetic])
def test_a_convolution_with_an_activation_inside_keeps_the_norm(structure: Structure, cls: type[nn.Conv2d]) -> None:
    left = {"1": Reason.NOT_LINEAR}
    assert_fuses(pair(cls(3, 4, 3)), values(2, 3, 6, 6), left=left, structure=structure)


def test_a_convolution_that_only_adds_a_method_is_a_convolution(structure: Structure) -> None:
    fused = assert_fuses(pair(ConvWithAnotherMethod(3, 4, 3)), values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert isinstance(dict(fused.named_modules())["0"], ConvWithAnotherMethod)


def test_a_forward_that_was_replaced_on_the_instance_keeps_the_norm(structure: Structure) -> None:
    model = pair(nn.Conv2d(3, 4, 3))
    plain = model[0].forward
    model[0].forward = lambda x: plain(x).relu()
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.NOT_LINEAR}, structure=structure)


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_weight_is_computed_once_and_takes_the_norm(structure: Structure, parametrize: Any) -> None:
    model = pair(parametrize(nn.Conv2d(3, 4, 3)))
    fused = assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure)
    assert not hasattr(dict(fused.named_modules())["0"], "parametrizations")


# -- hooks


def double_output(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output * 2


def double_input(_module: nn.Module, args: tuple[Tensor]) -> Tensor:
    return args[0] * 2


def hook(module: nn.Module, kind: str) -> None:
    if kind == "forward":
        module.register_forward_hook(double_output)
    elif kind == "pre":
        module.register_forward_pre_hook(double_input)
    else:
        module.register_full_backward_hook(lambda *_: None)


KINDS = ["forward", "pre", "backward"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["0", "1"])
def test_a_hook_on_the_layer_or_its_norm_keeps_the_norm(structure: Structure, name: str, kind: str) -> None:
    model = pair(nn.Conv2d(3, 4, 3))
    hook(model.get_submodule(name), kind)
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.HOOKED}, structure=structure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_on_a_block_around_the_pair_runs_as_before(structure: Structure, kind: str) -> None:
    model = nn.Sequential(pair(nn.Conv2d(3, 4, 3)), nn.ReLU()).eval()
    hook(model[0], kind)
    kept = assert_fuses(model, values(2, 3, 6, 6), left={"0.1": Reason.HOOKED}, structure=structure)
    observed = assert_fuses(model, values(2, 3, 6, 6), folded=["0.1"], structure=structure, hooks="observe")
    assert calls_of_hook(kept, "0") == calls_of_hook(observed, "0") == calls_of_hook(model, "0")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_on_the_model_runs_as_before(structure: Structure, kind: str) -> None:
    model = pair(nn.Conv2d(3, 4, 3))
    hook(model, kind)
    assert_fuses(model, values(2, 3, 6, 6), left={"1": Reason.HOOKED}, structure=structure)
    assert_fuses(model, values(2, 3, 6, 6), folded=["1"], structure=structure, hooks="observe")


def calls_of_hook(model: nn.Module, path: str) -> int:
    module = model.get_submodule(path)
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


@pytest.mark.parametrize("kind", ["forward", "pre"])
def test_a_global_hook_keeps_every_norm(structure: Structure, kind: str) -> None:
    model, inputs = pair(nn.Conv2d(3, 4, 3)), values(2, 3, 6, 6)
    registry: Any = nn.modules.module
    if kind == "forward":
        handle = registry.register_module_forward_hook(double_output)
    else:
        handle = registry.register_module_forward_pre_hook(double_input)
    try:
        with unchanged(model):
            fused = fx_fuse(model, structure=structure)
    finally:
        handle.remove()
    assert (folds(fused), reasons(fused)) == ([], {("1", Reason.HOOKED)})
    assert_same(model, fused, inputs)


def test_a_hook_that_observes_sees_what_it_saw(structure: Structure) -> None:
    seen: list[Tensor] = []
    model, inputs = pair(nn.Conv2d(3, 4, 3)), values(2, 3, 6, 6)
    model[0].register_forward_hook(lambda _module, _args, output: seen.append(output))
    fused = assert_fuses(model, inputs, left={"1": Reason.HOOKED}, structure=structure)
    seen.clear()
    fused(inputs)
    model(inputs)
    assert torch.equal(seen[0], seen[1])
