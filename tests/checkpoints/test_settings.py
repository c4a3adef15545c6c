"""A model whose weights are taken must compute the same with them as the one that was fused."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import export
from torch.nn.utils import parametrize

from fxfuse import FuseError, fx_fuse, refold
from tests.checkpoints.models import IMAGE, made
from tests.support.helpers import Structure, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Net(nn.Module):
    """A convolution and a norm, with settings of its own."""

    offset: Tensor
    keep: Tensor

    def __init__(self, *, gain: Any = 2.0, offset: float = 1.0, keep: bool = True, std: float = 3.0) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), torch.relu
        self._half, self.gain, self.sizes, self.std = 0.5, gain, [1, 2], torch.full((4, 1, 1), std)
        self.register_buffer("offset", torch.full((4, 1, 1), offset), persistent=False)
        self.register_buffer("keep", torch.tensor(keep), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)) * self._half * self.gain / self.std + self.offset
        return self.act(y) * self.keep


class Other(Net):
    """The same names, and perhaps another forward."""


def changed(change: Callable[[Any], Any], **options: Any) -> nn.Module:
    model = Net(**options)
    change(model)
    return model


def replaced(name: str, module: nn.Module) -> nn.Module:
    return changed(lambda m: setattr(m, name, module))


OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another eps": (lambda: replaced("norm", nn.BatchNorm2d(4, eps=0.1)), r"norm.eps is 0.1, and was 1e-05 when the"),
    "another stride": (lambda: replaced("conv", nn.Conv2d(4, 4, 3, 2)), r"conv.stride is \(2, 2\), and was \(1, 1\)"),
    "padding": (lambda: replaced("conv", nn.Conv2d(4, 4, 3, padding=1)), r"conv.padding is \(1, 1\), and was \(0, 0\)"),
    "a mode of padding": (
        lambda: replaced("conv", nn.Conv2d(4, 4, 3, padding_mode="reflect")),
        r"conv.padding_mode is 'reflect', and was 'zeros'",
    ),
    "a class": (Other, r"class is '.*Other', and was '.*Net'"),
    "a class below": (lambda: replaced("norm", nn.SyncBatchNorm(4)), r"norm.class is .*SyncBatchNorm"),
    "groups": (lambda: replaced("conv", Grouped()), r"conv.class is '.*Grouped'"),
    "a number": (lambda: Net(gain=3.0), r"gain is 3.0, and was 2.0"),
    "a private number": (lambda: changed(lambda m: setattr(m, "_half", 0.7)), r"_half is 0.7, and was 0.5"),
    "a number of another type": (lambda: Net(gain=2), r"gain is 2, and was 2.0"),
    "a number that is gone": (lambda: changed(lambda m: delattr(m, "sizes")), r"sizes is None, and was \(1, 2\)"),
    "a list": (lambda: changed(lambda m: m.sizes.append(3)), r"sizes is \(1, 2, 3\), and was \(1, 2\)"),
    "a function": (lambda: changed(lambda m: setattr(m, "act", torch.tanh)), r"act is '.*tanh', and was '.*relu'"),
    "a buffer that is not saved": (lambda: Net(offset=2.0), r"offset is tensor.*, and was tensor"),
    "a flag that is not saved": (lambda: Net(keep=False), r"keep is tensor\(False\), and was tensor\(True\)"),
    "a tensor": (lambda: Net(std=4.0), r"std is tensor.*, and was tensor"),
    "a module more": (lambda: replaced("more", nn.Identity()), r"more.class is .*Identity'?, and was None"),
    "no weight in the norm": (lambda: replaced("norm", nn.BatchNorm2d(4, affine=False)), r"2 missing \(norm.weight"),
    "no statistics": (
        lambda: replaced("norm", nn.BatchNorm2d(4, track_running_stats=False)),
        r"missing \(norm.running_mean",
    ),
    "a computed weight": (lambda: parametrized(Net()), r"1 missing \(conv.weight\), 1 left over"),
}


class Grouped(nn.Conv2d):
    """Its weight has the same shape for other groups."""

    def __init__(self) -> None:
        super().__init__(8, 4, 3, groups=2)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrized(model: nn.Module) -> nn.Module:
    parametrize.register_parametrization(model.get_submodule("conv"), "weight", Doubled())
    return model


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_with_the_same_names_is_told_and_changes_nothing(what: str, structure: Structure) -> None:
    factory, told = OTHERS[what]
    fused = fx_fuse(trained(Net()), structure=structure)
    before = copy.deepcopy(fused.state_dict())
    with pytest.raises(FuseError, match=told) as caught:
        refold(fused, trained(factory()))
    assert "othing was changed" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fused.state_dict().items())


ALIKE: dict[str, Callable[[nn.Module], object]] = {
    "in training": lambda model: model.train(),
    "another momentum": lambda model: setattr(model.get_submodule("norm"), "momentum", None),
    "frozen": lambda model: model.requires_grad_(requires_grad=False),
    "with hooks": lambda model: model.register_forward_hook(print),
    "marked by a compiler": lambda model: setattr(model, "_is_compiled", True),
    "loaded from elsewhere": lambda model: setattr(model, "name_or_path", "folder"),
}


@pytest.mark.parametrize("what", ALIKE)
def test_how_weights_came_about_makes_no_difference(what: str, structure: Structure) -> None:
    fused, retrained = fx_fuse(trained(Net()), structure=structure), trained(Net())
    expected = fx_fuse(retrained, structure=structure).state_dict()
    ALIKE[what](retrained)
    refold(fused, retrained)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in fused.state_dict().items())


def test_weights_that_are_computed_stay_computed(structure: Structure) -> None:
    fused, retrained = (trained(parametrized(Net())) for _ in range(2))
    fused, expected = (fx_fuse(model, structure=structure) for model in (fused, retrained))
    refold(fused, retrained)
    assert all(torch.equal(t, expected.state_dict()[name]) for name, t in fused.state_dict().items())
    x = values(*IMAGE)
    torch.testing.assert_close(fused(x), retrained(x))


def test_a_graph_is_compared_by_its_code() -> None:
    def traced(eps: float) -> fx.GraphModule:
        class Functional(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

            def forward(self, x: Tensor) -> Tensor:
                statistics = self.norm.running_mean, self.norm.running_var
                return nn.functional.batch_norm(self.conv(x), *statistics, eps=eps)

        return fx.symbolic_trace(trained(Functional()))

    fused = fx_fuse(traced(1e-5))
    refold(fused, traced(1e-5))
    with pytest.raises(FuseError, match=r"_code is .* and was"):
        refold(fused, traced(0.1))


def test_a_program_does_not_know_the_settings() -> None:
    program = fx_fuse(export(made("chain", 0), (values(*IMAGE),)))
    with pytest.raises(FuseError, match=r"An exported program does not tell the settings .* Pass the state_dict\(\)"):
        refold(program, made("chain", 1))


def test_plans_with_settings_are_copied_and_stored(structure: Structure, tmp_path: Any) -> None:
    model = made("chain", 0)
    fused = fx_fuse(model, structure=structure)
    torch.save(fused, tmp_path / "fused.pt")
    for one in (copy.deepcopy(fused), torch.load(tmp_path / "fused.pt", weights_only=False)):
        with pytest.raises(FuseError, match=r"1.eps is 0.5"):
            refold(one, with_eps(made("chain", 1)))
        refold(one, made("chain", 1))


def with_eps(model: nn.Module) -> nn.Module:
    vars(model.get_submodule("1"))["eps"] = 0.5
    return model
