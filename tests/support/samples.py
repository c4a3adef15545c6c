"""What the tests of the algebra, the rules and the public functions share, beside the helpers of all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import settings
from torch import Tensor, fx, nn

from fxfuse import FuseError, Report, fx_fuse
from tests.support.helpers import unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from fxfuse import Reason
    from fxfuse.report.decision import Decision

# The same examples every time, and no time limit for one, since machines differ.
SETTINGS = settings(deadline=None, derandomize=True)
# All rules but the merges, for tests of what becomes of norms beside layers that could be one.
FOLDS = ("fold_upstream", "fold_downstream", "fold_constants", "drop_noops")


def randn(*shape: int, seed: int = 0) -> Tensor:
    """A float64 tensor that is the same every time."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    """A float64 parameter that is the same every time."""
    return nn.Parameter(randn(*shape, seed=seed))


def graph_text(model: nn.Module) -> str:
    """The graph of a GraphModule, a line for each node, in the words of the model."""
    assert isinstance(model, fx.GraphModule)
    return "\n".join(map(_line, model.graph.nodes))


def _line(node: fx.Node) -> str:
    arguments = ", ".join([*map(str, node.args), *(f"{k}={v}" for k, v in node.kwargs.items())])
    if node.op == "placeholder":
        return f"{node.name} = <input>"
    if node.op == "output":
        return f"return {arguments}"
    if node.op == "get_attr":
        return f"{node.name} = self.{node.target}"
    if node.op == "call_module":
        return f"{node.name} = self.{node.target}({arguments})"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{node.name} = {name}({arguments})"


def lines(text: str) -> str:
    """A text written over several indented lines, without the indentation."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def only(decisions: tuple[Decision, ...]) -> Decision:
    """The one decision there is."""
    assert len(decisions) == 1, [str(d) for d in decisions]
    return decisions[0]


def assert_refused(model: nn.Module, reason: Reason, example_inputs: Any = None, **options: Any) -> Decision:
    """Nothing is folded, the only norm of the model stays for ``reason``, and nothing changes."""
    with unchanged(model):
        report = Report.of(fx_fuse(model, example_inputs, **options))
    assert report.folded == (), str(report)
    decision = only(report.skipped)
    assert decision.reason is reason, str(report)
    return decision


def error_of(call: Callable[[], object]) -> str:
    """The sentence of the FuseError that a call raises."""
    try:
        call()
    except FuseError as error:
        return str(error)
    raise AssertionError("no FuseError was raised")
