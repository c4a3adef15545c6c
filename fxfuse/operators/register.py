"""Add a row to the table of operators."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from torch import nn

from fxfuse.graph.registry import OPERATORS, Columns, NoRole, Operator, _by_type, add_late_rows
from fxfuse.operators.roles import View
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Unpack

    from fxfuse.graph.registry import ShapeAndResult


# What most rows say: an operation element by element, one along some axes, and a view.
SAME: ShapeAndResult = {"shape": "same", "result": "new"}
SAME_RANK: ShapeAndResult = {"shape": "same rank", "result": "new"}
VIEW: ShapeAndResult = {"shape": "same rank", "result": "view"}


def row(
    name: str,
    view: type[View] | None,
    arguments: str,
    *targets: Any,
    tuples: bool = False,
    otherwise: type[View] | None = None,
    **facts: Unpack[Columns],
) -> Operator:
    """Add a row to the table, as ``register`` does: the names of the arguments in one text, and all targets."""
    found = Operator(name, NoRole if view is None else view, tuple(arguments.split()), tuples, otherwise, **facts)
    OPERATORS.update(dict.fromkeys(targets, found))
    _by_type.clear()
    return found


def register(  # noqa: PLR0913 - a row has as many columns
    name: str,
    view: type[View] | None = None,
    *,
    arguments: Iterable[str] = ("input",),
    modules: Iterable[type[nn.Module]] = (),
    functions: Iterable[Callable[..., Any]] = (),
    methods: Iterable[str] = (),
    tuples: bool = False,
    otherwise: type[View] | None = None,
    replace: bool = False,
    **facts: Unpack[Columns],
) -> Operator:
    """Add a row to the table of operators.

    The arguments from ``shape`` on are facts about the operation, for all inputs.  What is left out is unknown: then
    fewer norms fold around the operation, and none folds wrongly.

    Example:
        >>> from torch import nn
        >>> from fxfuse.extend import Identity
        >>> class Tap(nn.Identity): ...
        >>> register("tap", Identity, arguments=["input"], modules=[Tap], shape="same", result="view").name
        'tap'

    Args:
        name: what the operation is called in reports.
        view: a subclass of ``Linear``, ``AffineSource`` or ``Carrier`` from ``fxfuse.extend``; None if no affine passes
            the operation, so that only facts are known of it.
        arguments: the names of the arguments in the order of positional ones, the transformed value first.  A last
            name that begins with ``*`` takes all arguments that follow, or a list of them.
        modules: module classes; an instance counts if the class, or a subclass that changes nothing that
            ``forward`` uses, is in the table.
        functions: functions as they appear in ``call_function`` nodes.
        methods: names of tensor methods.
        tuples: the call gives a tuple, of which only the first item is the value.
        otherwise: another such subclass, for calls that ``view`` does not match.
        replace: take the place of the rows that some of the targets have already.
        shape: ``"same"`` if the result has the shape of the input, ``"same rank"`` if it has as many axes,
            ``"broadcast"`` if all operands are broadcast against each other; ``"linear"`` is ``"same rank"`` for
            functions whose weight may also be a vector, which takes the last axis away.
        rank: the number of axes of the result; or a function of the arguments by name and of another function, which
            gives the number of axes of a value or None.
        takes: the numbers of axes that the input may have; the operation raises for all others.
        axes: the names of the arguments that number axes of the input, which has at least as many: ``"dim0 dim1"``.
        spatial: how many of the last axes the operation goes along: 2 for ``conv2d``.  Its input usually has two axes
            more.
        result: ``"new"`` for a tensor with memory of its own; ``"view"`` for the input or a view of it;
            ``"maybe view"`` for a view or a copy, as the strides of the input allow; ``"parts"`` for a tuple of
            views; ``"in place"`` for the input, written into; ``"number"`` for what is no tensor.
        strides: ``"fixed"`` if the strides of the result do not depend on those of the input; ``"dense"`` if the
            result is contiguous or channels_last.
        asks: ``"shape"`` if it needs only shape, dtype or device of the input, ``"rank"`` if only the number of axes;
            ``"strides"`` if it depends on the strides of the input, ``"dense strides"`` if it takes any dense input.
        like: the argument of which only shape, dtype or device matter: ``"other"`` of ``x.view_as(other)``.

    Returns:
        The row.

    Raises:
        FuseError: if an argument is not what it should be, or a target has a row; nothing is added then.
    """
    add_late_rows()
    given = {"modules": modules, "functions": functions, "methods": methods, "arguments": arguments}
    lists = [_listed(which, values) for which, values in given.items()]
    targets, named = tuple(itertools.chain(*lists[:-1])), lists[-1]
    for problem in (*_problems(view, otherwise, *lists), *_problems_of_facts(name, tuples, named, facts)):
        raise FuseError(f"register({name!r}): {problem}; nothing was registered.")
    known = [target for target in targets if target in OPERATORS]
    if known and not replace:
        raise FuseError(
            f"register({name!r}): {known[0]!r} has a row already, {OPERATORS[known[0]].name!r}; nothing was "
            "registered. Pass replace=True to put the new row in its place."
        )
    return row(name, view, " ".join(named), *targets, tuples=tuples, otherwise=otherwise, **facts)


def _listed(what: str, values: Iterable[Any]) -> tuple[Any, ...]:
    """Return a list of targets or names; a text would be one of letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise FuseError(f"{what}={values!r} is no list; nothing was registered. Pass {what}=[{values!r}].")
    return tuple(values)


def _problems(
    view: object,
    otherwise: object,
    modules: Iterable[object],
    functions: Iterable[object],
    methods: Iterable[object],
    arguments: Iterable[object],
) -> Iterator[str]:
    """Yield what is wrong with a row, most of which would be found late or never."""
    for which, role in (("view", view), ("otherwise", otherwise)):
        if role is not None and not (isinstance(role, type) and issubclass(role, View)):
            yield f"{which}={role!r} is no role; pass a subclass of Linear, AffineSource or Carrier, or None"
    kinds: tuple[tuple[str, Iterable[object], Callable[[Any], bool], str], ...] = (
        ("modules", modules, lambda m: isinstance(m, type) and issubclass(m, nn.Module), "class of modules"),
        ("functions", functions, _is_function, "function"),
        ("methods", methods, lambda m: isinstance(m, str) and m.isidentifier(), "name of a method"),
        ("arguments", arguments, lambda a: isinstance(a, str) and a.lstrip("*").isidentifier(), "name of an argument"),
    )
    for which, values, fits, wanted in kinds:
        yield from (f"{value!r} in {which} is no {wanted}" for value in values if not fits(value))
    if not any(values for which, values, *_ in kinds if which != "arguments"):
        yield "it has no targets; pass modules, functions or methods"
    if not arguments or len(set(arguments)) < len(tuple(arguments)):
        yield f"arguments={list(arguments)!r} must name the transformed value, and each argument once"


def _problems_of_facts(
    name: object, tuples: object, arguments: tuple[Any, ...], facts: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the columns that are no targets."""
    if not (isinstance(name, str) and name):
        yield "the name must be a text that reports show"
    if not isinstance(tuples, bool):
        yield f"tuples={tuples!r} is neither True nor False"
    yield from filter(None, (_problem_of_fact(column, value) for column, value in facts.items()))
    named = {word for column in ("axes", "like") for word in str(facts.get(column, "")).split()}
    for word in sorted(named - {str(argument).lstrip("*") for argument in arguments}):
        yield f"{word!r} is none of the arguments {list(arguments)!r}"


def _problem_of_fact(column: str, value: Any) -> str:
    known = get_type_hints(Columns)
    if column not in known:
        return f"{column} is no fact; known are {', '.join(known)}"
    if column in _FACTS:
        fits, wanted = _FACTS[column]
        return "" if fits(value) else f"{column}={value!r} is not {wanted}"
    words = get_args(known[column])
    return "" if value in words else f"{column}={value!r} is not known; it is one of {', '.join(map(repr, words))}"


_FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rank": (lambda rank: callable(rank) or isinstance(rank, int), "a number, or a function that gives one"),
    "takes": (lambda ranks: isinstance(ranks, tuple) and all(isinstance(n, int) for n in ranks), "a tuple of numbers"),
    "axes": (lambda names: isinstance(names, str), "a text with names of arguments"),
    "spatial": (lambda count: isinstance(count, int), "a number of axes"),
    "like": (lambda argument: isinstance(argument, str), "the name of an argument"),
}


def _is_function(value: object) -> bool:
    return callable(value) and not (isinstance(value, type) and issubclass(value, nn.Module))
