"""A model that cannot be traced as a whole, captured by watching it run on the example inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fxfuse.capture.captured import Capture, Part
from fxfuse.capture.recording import Recording
from fxfuse.graph.nodes import UNTRACED
from fxfuse.modules.comparison import agree
from fxfuse.modules.lookup import fetch, paths_below
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from fxfuse.graph.lazy_graph_module import Draft
    from fxfuse.modules.example_inputs import Inputs

WHY = "its code was not traced, but watched on the example inputs"


def capture_runs(static: Capture, calls: Sequence[Inputs], expected: Sequence[Any]) -> Capture:
    """Return a capture of what a model does on example inputs, and of the parts that these do not reach.

    Args:
        static: what could be captured without running the model.
        calls: the example inputs.
        expected: what the model gives on them.

    Raises:
        FuseError: if the model gives something else while it is watched.
    """
    model = static.model
    called, draft = _record(model, calls, expected)
    others = [part for part in static.parts if part.module is not model]
    unseen = [part for part in others if called.isdisjoint(paths_below(part.module))]
    parts = [Part(model, "", draft, recorded=True), *unseen]
    left = {module for part in unseen for module in paths_below(part.module)}
    frozen = {m: refusal for m, refusal in static.frozen.items() if m in left or refusal.reason is Reason.HOOKED}
    names = replace(static, given=True).names  # of what other inputs may run
    frozen |= names.read()
    frozen |= _read_by_untraced(model, draft)
    opaque = {m: why for m, why in static.opaque.items() if m not in called}
    return Capture(model, parts, {**opaque, model: static.opaque.get(model, WHY)}, frozen=frozen, by_name=names)


def _record(model: nn.Module, calls: Sequence[Inputs], expected: Sequence[Any]) -> tuple[set[nn.Module], Draft]:
    """Watch the runs, again without traces that turn out to be wrong; return what was called, and the graph."""
    untraced: set[nn.Module] = set()
    while True:
        recording = Recording(model, untraced)
        given: list[Any] = []
        try:
            given += (recording.run(inputs) for inputs in calls)
        except Exception:
            if not recording.wrong - untraced:
                raise
        if not recording.wrong - untraced and all(map(agree, expected, given)):
            return recording.called, recording.graph_module()
        wrong = recording.wrong - untraced or recording.traced
        if not wrong:
            raise FuseError("The model gives something else while it is watched.")
        untraced |= wrong


def _read_by_untraced(model: nn.Module, draft: Draft) -> dict[nn.Module, Refusal]:
    """Return the modules of which code that was not traced reads tensors by itself."""
    found: dict[nn.Module, Refusal] = {}
    for node in draft.graph.nodes:
        if node.op == "get_attr" and UNTRACED in node.meta:
            path = str(node.target).rpartition(".")[0]
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            reader = stack[-1][0] if stack else ""
            if reader != path:
                refusal = Refusal(Reason.REACHED_INTO, value=path or "the model", users=reader or type(model).__name__)
                found[fetch(model, path) if path else model] = refusal
    return found
