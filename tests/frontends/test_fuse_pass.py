"""``FusePass``: beside other passes, and never an error out of a pipeline."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import pytest
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager
from torch.fx.passes.shape_prop import ShapeProp

from fxfuse import FuseError, FusePass, Report
from tests.forms.pipelines import Vectors, conv_norm, described, traced, with_inputs
from tests.support.helpers import assert_equal, run, values
from tests.support.samples import only, parameter

if TYPE_CHECKING:
    from torch import fx

IMAGE = (2, 3, 6, 6)


class Doubles(PassBase):
    """A user's pass: multiplies what the graph returns by two."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
        with graph_module.graph.inserting_before(output):
            output.args = (graph_module.graph.call_function(operator.mul, (output.args[0], 2)),)
        return PassResult(graph_module, modified=True)


class Shapes(PassBase):
    """Shape propagation, as a pass."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        ShapeProp(graph_module).propagate(values(5, 3))
        return PassResult(graph_module, modified=False)


def test_beside_a_pass_of_the_user() -> None:
    model = conv_norm()[:2]
    graph_module = traced(model)
    fuse = FusePass()
    result = PassManager(passes=[Doubles(), fuse], steps=1)(graph_module)
    assert result.modified
    assert result.graph_module is graph_module
    assert {d.path for d in fuse.report.folded} == {"1", "mul"}
    assert fuse.report is Report.of(graph_module)
    x = values(*IMAGE)
    assert_equal(2 * run(model, (x,)), run(graph_module, (x,)))


def test_behind_shape_propagation_nothing_is_assumed() -> None:
    model = Vectors(weight=parameter(4, 3), mean=values(4), var=values(4).exp()).eval()
    for before, assumed in (([], True), ([Shapes()], False)):
        result = PassManager(passes=[*before, FusePass()])(traced(model))
        assert only(Report.of(result.graph_module).folded).assumed is assumed


def test_until_nothing_changes_any_more() -> None:
    passes = FusePass()
    result = PassManager(passes=[passes], steps=5)(traced(conv_norm()))
    assert result.modified
    assert [bool(report) for report in passes.reports] == [True, False]  # the last step finds nothing more
    assert passes.report is passes.reports[-1]
    assert {decision.path for decision in passes.folded} == {"1"}
    assert passes.error is None


def test_each_graph_of_a_pipeline_has_its_report() -> None:
    fuse = FusePass({"weights": values(3)})
    fuse.call(traced(conv_norm()))
    fuse.constants = None
    fuse.call(traced(conv_norm()))
    assert [len(report.folded) for report in fuse.reports] == [0, 1]
    (note,) = fuse.reports[0].notes
    assert note.startswith("The graph was left as it was: The constant 'weights' has no placeholder")


def test_hooks_that_are_not_known_are_told_at_once() -> None:
    with pytest.raises(FuseError, match="hooks='watch' is not known"):
        FusePass(hooks="watch")  # type: ignore[arg-type] # the point


def test_an_option_that_is_none_is_told_at_once() -> None:
    with pytest.raises(FuseError, match="guards='no' is neither True nor False"):
        FusePass(guards="no")  # type: ignore[arg-type] # the point


def test_options_and_constants_of_a_pass() -> None:
    graph_module, constants, _ = with_inputs(conv_norm())
    assert FusePass(constants).call(graph_module).modified
    assert not FusePass(rules=[]).call(traced(conv_norm())).modified


def test_an_unknown_option_is_an_error_of_python() -> None:
    with pytest.raises(TypeError, match="structure"):
        FusePass(structure="graph")  # type: ignore[call-arg] # the point


def test_a_rule_that_is_none_is_told_at_once() -> None:
    with pytest.raises(FuseError, match=r"rules=\['nope'\]: 'nope' is no rule"):
        FusePass(rules=["nope"])


def test_an_error_is_kept_and_not_raised() -> None:
    graph_module = traced(conv_norm())
    before = described(graph_module)
    fuse = FusePass({"weights": values(3)})
    result = fuse.call(graph_module)
    assert (result.modified, result.graph_module) == (False, graph_module)
    assert isinstance(fuse.error, FuseError)
    assert "'weights'" in str(fuse.error)
    assert not fuse.report
    assert described(graph_module) == before
    fuse.constants = None
    assert fuse.call(graph_module).modified
    assert fuse.error is None
