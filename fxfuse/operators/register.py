"""Add a row to the table of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxfuse.graph.registry import OPERATORS, Operator, _by_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from fxfuse.operators.roles import View


def register(  # noqa: PLR0913 - a row has as many columns
    name: str,
    view: type[View],
    *,
    arguments: Iterable[str],
    modules: Iterable[type[nn.Module]] = (),
    functions: Iterable[Callable[..., Any]] = (),
    methods: Iterable[str] = (),
    tuples: bool = False,
    otherwise: type[View] | None = None,
) -> Operator:
    """Add a row to the table of operators; a later row for the same target replaces the earlier one.

    Example:
        >>> from torch import nn
        >>> from fxfuse.extend import Identity
        >>> class Tap(nn.Identity): ...
        >>> register("tap", Identity, arguments=["input"], modules=[Tap]).name
        'tap'

    Args:
        name: the field's name of the operation.
        view: a subclass of ``Linear``, ``AffineSource`` or ``Carrier`` from ``fxfuse.extend``.
        arguments: the names of the arguments in the order of positional ones, the transformed value first.
        modules: module classes; an instance counts if the class, or a subclass that changes nothing that
            ``forward`` uses, is in the table.
        functions: functions as they appear in ``call_function`` nodes.
        methods: names of tensor methods.
        tuples: the call gives a tuple, of which only the first item is the value.
        otherwise: another such subclass, for calls that ``view`` does not match.

    Returns:
        The row.
    """
    operator = Operator(name, view, tuple(arguments), tuples, otherwise)
    for target in (*modules, *functions, *methods):
        OPERATORS[target] = operator
    _by_type.clear()
    return operator
