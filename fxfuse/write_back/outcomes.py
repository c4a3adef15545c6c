"""What becomes of a call: it stays, goes or is written. And whether one module can do for several calls of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from fxfuse.graph.nodes import position_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, fx

    from fxfuse.edit.editor import Editor
    from fxfuse.graph.guard import Check
    from fxfuse.graph.nodes import Position
    from fxfuse.graph.plan import Plan, Write


class Outcome(NamedTuple):
    """What becomes of a call.

    Attributes:
        dropped: nobody reads its result any more.
        argument: which of its arguments its readers read now, ``("", None)`` for what none of them is yet; None where
            it stays.
        guard: what is checked in its place, or None.
        write: its new tensors, or None.
    """

    dropped: bool = False
    argument: Position | None = None
    guard: Check | None = None
    write: Write | None = None

    @property
    def stays(self) -> bool:
        """Whether the call is what it was."""
        return not self.dropped and self.argument is None and self.write is None


def plans_for(node: fx.Node, plans: Iterable[Plan]) -> list[Plan]:
    """Return the plans that change a node."""
    return [plan for plan in plans if node in plan.nodes]


def outcome_of(editor: Editor, node: fx.Node, plans: Iterable[Plan]) -> Outcome:
    """Return what becomes of a call by plans, of which some may be done already."""
    write: Write | None = None
    dropped, argument, guard = False, None, None
    for plan in plans_for(node, plans):
        for new in (new for new in plan.writes if new.call.node is node):
            write = new if write is None else new.after(write)
        dropped = dropped or node in plan.dropped
        for value in (value for gone, value in plan.bypass if gone is node):
            argument = _argument(editor, node, value)
            guard = plan.check_at(node)
    return Outcome(dropped, argument, guard, write)


def _argument(editor: Editor, node: fx.Node, value: fx.Node) -> Position:
    if node in editor.bypassed:
        return editor.bypassed[node].argument
    source = editor.graph.source(node)
    return position_of(source, value) if value in source.all_input_nodes else ("", None)


def same(one: Outcome, other: Outcome, *, exact: bool) -> bool:
    """Whether one module can do for two calls.

    Args:
        one: what becomes of the first call.
        other: what becomes of the second.
        exact: a call of which nobody reads the result has to go in the same way, as in a forward that is edited.
    """
    if (one.dropped or other.dropped) and not exact:
        return not one.stays and not other.stays
    if one[:3] != other[:3]:
        return False
    first, second = one.write, other.write
    if first is None or second is None or one.argument is not None:
        return first is second or one.argument is not None
    tensors = first.constants.keys() == second.constants.keys()
    tensors = tensors and all(_equal(tensor, second.constants[name]) for name, tensor in first.constants.items())
    return tensors and first.is_like(second)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.detach(), other.detach())
