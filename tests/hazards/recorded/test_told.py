"""Who is told what when a value goes another way; memory and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from fxfuse import FuseError, Reason, Report, fx_fuse
from fxfuse.modules.handed_on import WrongWayError
from tests.hazards.recorded.uses import WAYS_TO_CALL, Uses, X, fused, quiet
from tests.support.helpers import Model, assert_equal, trained

if TYPE_CHECKING:
    from collections.abc import Callable


# -- who is told


class Inner(Uses):
    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


def test_an_error_names_the_module_that_uses_the_value() -> None:
    original = trained(Inner(inner=fused()[0], used=nn.ReLU()))
    result: Any = fx_fuse(original, X)
    result.inner.way = "method"
    with pytest.raises(FuseError, match=r"'inner.conv' and 'inner.bn' together.* Now 'inner' uses it \(relu\)"):
        result(X)
    result.inner.way, result.inner.others = "used", {"used": result.used}
    with pytest.raises(FuseError, match=r"Now 'used' uses it \(relu\)"):
        result(X)


@torch.no_grad()
def test_a_hook_that_computes_with_the_value_is_told() -> None:
    original, result = fused()
    seen: list[Any] = []
    result.conv.register_forward_hook(lambda *args: seen.append(args[-1].shape))
    assert_equal(original(X), result(X))
    assert seen == [(2, 4, 6, 6)]
    with FlopCounterMode(display=False) as counter:
        result(X)
    assert counter.get_total_flops()
    result.conv.register_forward_hook(lambda *args: seen.append(args[-1].mean()))
    with pytest.raises(FuseError, match=r"Now a hook of 'conv' uses it \(mean\)"):
        result(X)


@torch.no_grad()
def test_a_part_that_is_called_by_itself_raises_what_no_handler_catches() -> None:
    original = trained(Inner(inner=fused()[0]))
    result: Any = fx_fuse(original, X)
    result.inner.way = "caught"
    with pytest.raises(WrongWayError):
        result.inner(X)
    result.inner.way = ""
    assert_equal(original(X), result(X))


# -- memory and gradients


class Writes(Model):
    """A norm that goes gave new memory."""

    way = ""
    axes = 2

    def forward(self, x: Tensor) -> Any:
        try:
            x = x[0].clone()
        finally:
            x = x if self.axes == 3 else x.flatten(0, 1)
        y = self.norm(x)
        if self.way:
            x += 1
        return self.linear(y) + x.sum()


class Transposed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.transpose(1, 2)).transpose(1, 2)


@quiet
@torch.no_grad()
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("call", WAYS_TO_CALL.values(), ids=WAYS_TO_CALL)
def test_what_is_written_in_place_afterwards_is_another_tensor(call: Callable[[Any], Any], axes: int) -> None:
    norm = nn.BatchNorm1d(6)
    original = trained(Writes(norm=Transposed(bn=norm) if axes == 3 else norm, linear=nn.Linear(6, 3)))
    original.axes = axes
    result: Any = fx_fuse(original, X)
    assert [d.evidence for d in Report.of(result).folded] == ["recorded"]
    for way in ("", "written"):
        original.way = result.way = way
        assert_equal(original(X), call(result))


class Twice(Uses):
    def forward(self, x: Tensor) -> Any:
        try:
            y = self.conv(x)
        finally:
            x = self.bn(y)
        x += 1
        return x + self.bn(y)


class TwiceAfterwards(Uses):
    def forward(self, x: Tensor) -> Any:
        try:
            y = self.bn(x)
        finally:
            x = self.conv(y)
        return x + self.conv(y)


@pytest.mark.parametrize(
    "model",
    [
        Twice(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4)),
        TwiceAfterwards(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(3)),
    ],
)
def test_a_value_that_is_taken_twice_keeps_its_norm(model: Model) -> None:
    with torch.no_grad():
        result = fx_fuse(trained(model), X)
        assert [d.reason for d in Report.of(result).norms_left] != [Reason.DIFFERS]
        assert not Report.of(result).folded
        assert_equal(model(X), result(X))


class Checkpointed(Uses):
    """Its layer runs again when gradients are computed."""

    reentrant = False

    def forward(self, x: Tensor) -> Any:
        try:
            y = checkpoint(self.conv, x, use_reentrant=self.reentrant)
        finally:
            self.__dict__.pop("last", None)
        return self.bn(y)


def test_gradients_pass_a_checkpoint_or_there_is_an_error() -> None:
    original = trained(Checkpointed(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    result: Any = fx_fuse(original, X)
    assert Report.of(result).folded
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    for each, x in zip((original, result), inputs, strict=True):
        each(x).square().sum().backward()
    assert inputs[0].grad is not None
    assert_equal(inputs[0].grad, inputs[1].grad)
    result.reentrant = True  # then gradients would not pass from the box to what is inside
    with pytest.raises(FuseError, match=r"'conv' and 'bn' together.*isinstance"):
        result(inputs[0])


def test_no_symbolic_trace_goes_through_a_check() -> None:
    _, result = fused()
    traced: Any = torch.fx.Tracer().trace(nn.Sequential(result.conv, result.bn))  # torch's own layers are nodes
    assert [node.op for node in traced.nodes] == ["placeholder", "call_module", "call_module", "output"]
    with pytest.raises(torch.fx.proxy.TraceError, match="checked there whenever the model runs"):
        torch.fx.symbolic_trace(result.conv)
