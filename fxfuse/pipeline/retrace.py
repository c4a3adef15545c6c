"""Whether the Python forwards of a result still do what the edited graphs say.

A forward that is kept runs again, on the new modules.  If it asks what they are (``isinstance(self.bn, BatchNorm2d)``,
``self.conv.bias is None``), or reaches the old ones in a way that cannot be exchanged (a closure, a named tuple), it
does something else than it did while it was traced.  So where code may look into a module that changed, its forward
is traced on the new modules, and must give the edited graph.  Code that only calls them does what it did.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fxfuse.capture.tracer import Tracer
from fxfuse.graph.call import operator_at
from fxfuse.graph.graph import Graph
from fxfuse.graph.uses import asks_shape
from fxfuse.modules.guards import require_value
from fxfuse.operators.noops import Noop
from fxfuse.report.errors import out_of_memory
from fxfuse.write_back.copies import copies_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import fx, nn

    from fxfuse.graph.nodes import Origin
    from fxfuse.pipeline.attempt import Attempt, Edited


def unfaithful(attempt: Attempt, bound: Collection[nn.Module]) -> list[Edited]:
    """Return the edits with which a forward would not do what its edited graph says.

    Args:
        attempt: the edits.
        bound: modules that objects in attributes hold, which cannot be exchanged.
    """
    captured = attempt.captured
    opaque, held = captured.opaque, {*captured.held, *bound}
    traced = [edited for edited in attempt.edited if edited.replaced and edited.part.module not in opaque]
    changed = [edited for edited in traced if not held.isdisjoint(edited.replaced)]
    if not changed:
        return []
    copies = copies_of(captured.model, attempt.replaced, [edited.part.module for edited in changed])
    return [edited for edited in changed if not _same_calls(edited, copies)]


class _Strict(Tracer):
    """A call of a module that is left whole must be one that its forward accepts: an identity has one argument."""

    def _leave_whole(self, m: nn.Module, path: str, forward: Any, args: Any, kwargs: Any) -> Any:
        inspect.signature(m.forward).bind(*args, **kwargs)
        return super()._leave_whole(m, path, forward, args, kwargs)


def _same_calls(edited: Edited, copies: Mapping[nn.Module, nn.Module]) -> bool:
    part, editor = edited.part, edited.editor
    tracer = _Strict(part.passed, {copies.get(module, module) for module in part.wrongly_traced})
    try:
        again = Graph(tracer.capture(copies[part.module]))
    except Exception as error:
        if out_of_memory(error):
            raise
        return False  # whatever it raises, it is not what it was
    return _calls(again, {}) == _calls(editor.graph, editor.origin)


def _calls(graph: Graph, origins: Mapping[fx.Node, Origin]) -> list[tuple[str, object]]:
    """Return what a graph calls, in order and under the names of the model, but for what does nothing."""
    return [
        (node.op, origins[node].target if node in origins else node.target)
        for node in graph.graph_module.graph.nodes
        if node.op in ("call_module", "call_function", "call_method")
        and node not in graph.dead
        and node not in graph.constants
        and node.target is not require_value
        and not asks_shape(node)
        and not _does_nothing(graph, node)
    ]


def _does_nothing(graph: Graph, node: fx.Node) -> bool:
    row = operator_at(node, graph.module(node))
    return row is not None and issubclass(row.view, Noop)
