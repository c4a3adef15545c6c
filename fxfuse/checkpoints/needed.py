"""Which steps of a tape some tensors are made by."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.algebra.tape import STEPS, Step, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


class Families:
    """Tensors that share memory: what is written into one of them changes all."""

    def __init__(self, steps: Iterable[Step]) -> None:
        """Find out by what torch says about each operation."""
        self._parents: dict[Value, Value] = {}
        for step in steps:
            results = values_in(step.result)
            shared = [v for place in sharing(step.name) for v in values_in(argument(step, place))]
            for value in (*shared[1:], *results) if shared else ():
                self._parents[self.of(value)] = self.of(shared[0])

    def of(self, value: Value) -> Value:
        """Return the tensor that stands for all that share memory with one."""
        while value in self._parents and self._parents[value] != value:
            value = self._parents[value]
        return value


def needed(steps: Collection[Step], wanted: Iterable[Value], given: Iterable[Value]) -> list[Step]:
    """Return the steps that some tensors need, and the questions that were asked about values that may be others.

    Args:
        steps: all steps.
        wanted: the tensors.
        given: tensors of which the values may be others.
    """
    families = Families(steps)
    open_, found = {families.of(value) for value in wanted}, list[Step]()
    asked = _asked(steps, families, given)
    for number, step in reversed(list(enumerate(steps))):
        changes = {families.of(v) for v in (*values_in(step.result), *written(step))}
        if number in asked or not open_.isdisjoint(changes):
            found.append(step)
            open_ |= {families.of(value) for value in values_in((step.args, step.kwargs))}
    return found[::-1]


def _asked(steps: Iterable[Step], families: Families, given: Iterable[Value]) -> set[int]:
    """Return the numbers of steps that gave no tensor but an answer, which other given values may change."""
    open_, found = {families.of(value) for value in given}, set[int]()
    for number, step in enumerate(steps):
        if open_.isdisjoint(families.of(value) for value in values_in((step.args, step.kwargs))):
            continue
        open_ |= {families.of(v) for v in (*values_in(step.result), *written(step))}
        if is_answer(step):
            found.add(number)
    return found


def is_answer(step: Step) -> bool:
    """Whether a step gave no tensor, and wrote into none."""
    return step.result is not None and not values_in(step.result)


def values_in(item: Any) -> list[Value]:
    """Return the tensors among arguments or results."""
    kind = type(item)
    if kind is Value:
        return [item]
    if kind is dict:
        item = item.values()
    elif kind is not list and kind is not tuple:
        return []
    return [value for one in item if type(one) not in _NUMBERS for value in values_in(one)]


_NUMBERS = frozenset([int, float, bool, str, type(None)])


def written(step: Step) -> list[Value]:
    """Return the tensors that a step writes into."""
    if _is_unknown(step.name):
        return values_in((step.args, step.kwargs))  # it may do anything
    return [v for place in _aliases(step.name)[1] for v in values_in(argument(step, place))]


def sharing(name: str) -> tuple[tuple[int, str], ...]:
    """Return the arguments of an operation that share memory with its result."""
    return _aliases(name)[0]


def argument(step: Step, place: tuple[int, str]) -> Any:
    """Return an argument by its position, or its name."""
    position, name = place
    return step.args[position] if position < len(step.args) else step.kwargs.get(name)


@functools.cache
def _aliases(name: str) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
    """Return which arguments share memory with the result, and which are written into."""
    if name in STEPS:
        return ((0, ""),) * STEPS[name].shares, ()
    if _is_unknown(name):
        return (), ()
    function: Any = function_of(name)
    arguments: list[Any] = function._schema.arguments
    found = [(n, a) for n, a in enumerate(arguments) if a.alias_info is not None]
    shared = tuple((n, a.name) for n, a in found)
    return shared, tuple((n, a.name) for n, a in found if a.alias_info.is_write)


@functools.cache
def _is_unknown(name: str) -> bool:
    """Whether it is a function of functions, of which nothing is known; whoever needs it is told when it is called."""
    try:
        return name not in STEPS and not hasattr(function_of(name), "_schema")
    except LookupError:
        return True


@functools.cache
def function_of(name: str) -> Callable[..., Any]:
    """Return what a step calls.

    Raises:
        LookupError: if there is no such operation.
    """
    if name in STEPS:
        return STEPS[name].function
    space, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    try:
        found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, space), packet), overload)
    except AttributeError:
        raise LookupError(name) from None
    return found


def require_known(name: str) -> None:
    """Refuse a step of a file that is no computation: files are data that anybody may have written.

    Raises:
        LookupError: if there is no such operation, or it does something else than to compute tensors from tensors.
    """
    function = function_of(name)
    if name in STEPS:
        return
    schema: Any = getattr(function, "_schema", None)
    computes = schema is not None and any("Tensor" in str(a.type) for a in schema.arguments)
    if not name.startswith("aten.") or not (computes or name.split(".")[1] in _MAKES):
        raise LookupError(f"{name} computes no tensor from tensors")


_MAKES = frozenset("zeros ones full empty arange eye scalar_tensor empty_strided".split())
