"""The check of a fold on a run holds however the model runs: compiled, exported, mapped, with errors caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse
from tests.hazards.recorded.uses import WAYS_TO_CALL, WRONG, Uses, X, compiled, fused, quiet
from tests.support.helpers import Model, assert_equal, trained

if TYPE_CHECKING:
    from collections.abc import Callable


@torch.no_grad()
@quiet
@pytest.mark.parametrize("call", WAYS_TO_CALL.values(), ids=WAYS_TO_CALL)
@pytest.mark.parametrize("way", ["", "shape"])
def test_what_arrives_is_right_however_the_model_runs(way: str, call: Callable[[Any], Any]) -> None:
    original, result = fused()
    original.way = result.way = way
    assert_equal(original(X), call(result))


@torch.no_grad()
@quiet
@pytest.mark.parametrize("call", WAYS_TO_CALL.values(), ids=WAYS_TO_CALL)
@pytest.mark.parametrize("way", ["method", "function", "layer", "leaves", "caught", "caught by all means"])
def test_another_way_is_an_error_however_the_model_runs(way: str, call: Callable[[Any], Any]) -> None:
    _, result = fused()
    result.way = way
    error = Exception if call is WAYS_TO_CALL["compiled as a whole"] else FuseError  # torch's, which quotes it
    with pytest.raises(error, match="'conv' and 'bn' together"):
        call(result)


@torch.no_grad()
@pytest.mark.parametrize("way", WRONG)
def test_whatever_else_uses_a_value_is_an_error(way: str) -> None:
    original, result = fused()
    result.way = way
    for _ in range(2):
        with pytest.raises(FuseError, match=r"'conv' and 'bn' together.*example of each way"):
            result(X)
    original.way = result.way = "shape"
    assert_equal(original(X), result(X))  # nothing is left behind


@torch.no_grad()
def test_strict_export_never_gives_a_number() -> None:
    original, result = fused()
    assert_equal(original(X), torch.export.export(result, (X,), strict=True).module()(X))
    result.way = "caught by all means"
    with pytest.raises(Exception, match=r"'bn' gets something else|Observed exception"):
        torch.export.export(result, (X,), strict=True)


def test_the_compiler_sees_no_check() -> None:
    _, result = fused()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    torch.compile(result, backend=backend, fullgraph=True)(X)  # type: ignore[no-untyped-call]
    assert [node.target for node in graphs[0].graph.nodes if node.op == "call_function"] == [torch.conv2d]


# -- parts that are compiled by themselves


@torch.no_grad()
@pytest.mark.parametrize("names", [("conv",), ("bn",), ("conv", "bn")])
def test_layers_that_are_compiled_later_are_checked(names: tuple[str, ...]) -> None:
    original, result = fused()
    torch.compiler.reset()
    for name in names:
        setattr(result, name, torch.compile(getattr(result, name), backend="eager"))
    assert_equal(original(X), result(X))
    result.way = "method"
    with pytest.raises(FuseError, match="'conv' and 'bn' together"):
        result(X)


class Breaks(Uses):
    """The compiler has to give up between the two."""

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        try:
            torch._dynamo.graph_break()
        finally:
            x = y.relu() if self.way == "method" else y
        return self.bn(x)


@torch.no_grad()
def test_a_value_passes_from_one_compiled_graph_to_the_next() -> None:
    original = trained(Breaks(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    result: Any = fx_fuse(original, X)
    assert Report.of(result).folded
    assert_equal(original(X), compiled(result))
    result.way = "method"
    with pytest.raises(FuseError, match="'conv' and 'bn' together"):
        compiled(result)


class Scripted(Model):
    """A forward that TorchScript can compile, with both branches."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) if bool(x.sum() < 1e9) else y


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_does_not_compile_the_check_away() -> None:
    result = fx_fuse(trained(Scripted(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4))), X)
    assert [d.evidence for d in Report.of(result).folded] == ["recorded"]
    with pytest.raises(AttributeError):
        torch.jit.script(result)(X)
