"""What is read of byte code is the same in every version of Python.

None of it needs torch: ``nox -s byte_code`` runs it on all versions that there are, without.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fxfuse.capture.frames import asked_classes, raises_if, unpacked
from fxfuse.modules.untraceable_bytecode import asks_what_a_graph_cannot_say
from tests.capture import questions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Asked:
    """A value that notes what its user asks of it."""

    def __init__(self, *, truth: bool = True) -> None:
        self.told: list[Any] = []
        self.truth = truth

    def __bool__(self) -> bool:
        self.told.append(raises_if(sys._getframe(1)))
        return self.truth

    def __eq__(self, other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return id(self)

    def __iter__(self) -> Iterator[int]:
        self.told.append(unpacked(sys._getframe(1)))
        return iter((1, 2, 3)[: self.told[-1]])


class LikeInt:
    """A value that notes for which classes it is asked, and whether that is an assertion; it says that it is an int."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @property  # type: ignore[misc] # isinstance asks for it, and nothing sets it
    def __class__(self) -> type:
        frame = sys._getframe(1)
        self.told.append((asked_classes(frame), raises_if(frame, after_call=True)))
        return int


def told(function: Callable[[Any], Any], value: Any) -> Any:
    """What a value notes, once, while a function is called with it."""
    function(value)
    (noted,) = value.told
    return noted


@pytest.mark.parametrize(
    "function",
    [
        *(questions.asserts, questions.asserts_and_says_why, questions.asserts_a_number),
        *(questions.asserts_at_the_end, questions.asserts_in_a_loop),
    ],
)
def test_an_assertion(function: Callable[[Any], Any]) -> None:
    assert told(function, Asked()) is False


@pytest.mark.parametrize(
    "function",
    [
        *(questions.branches, questions.negates, questions.repeats, questions.says_and_raises),
        *(questions.asserts_of_lists, questions.raises_for_one_of_two, questions.raises_in_a_loop),
    ],
)
def test_a_branch_is_no_assertion(function: Callable[[Any], Any]) -> None:
    assert told(function, Asked()) is None


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        (questions.raises_another_error, False),
        (questions.raises_and_says_why, True),
        (questions.raises_what_it_names, True),
        (questions.raises_otherwise, False),
        (questions.raises_for_either, True),
    ],
)
def test_a_branch_that_only_raises(function: Callable[[Any], Any], truth: bool) -> None:
    value = Asked(truth=not truth)
    function(value)
    assert set(value.told) == {truth}


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        (questions.one_class, (int,)),
        (questions.several_classes, (int, str, dict)),
        (questions.class_of_a_module, (itertools.chain,)),
        (questions.computed_class, ()),
        (questions.asks_for_the_class, ()),
    ],
)
def test_classes_that_are_asked_for(function: Callable[[Any], Any], classes: tuple[type, ...]) -> None:
    assert told(function, LikeInt()) == (classes, None)


def test_a_class_that_is_asserted() -> None:
    assert told(questions.asserts_a_class, LikeInt()) == ((int,), False)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (questions.two_names, 2),
        (questions.three_names_of_an_attribute, 3),
        (questions.loops, None),
    ],
)
def test_names_that_a_value_is_unpacked_into(function: Callable[[Any], Any], count: int | None) -> None:
    assert told(function, Asked()) == count


def test_what_an_iterator_looks_at_is_not_unpacked() -> None:
    value = Asked()
    questions.names_of_what_an_iterator_gives(value)
    assert value.told == [None, None]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (questions.compares_by_identity, "it compares by identity"),
        (questions.compares_with_none, ""),
        (questions.asks_for_a_state, "it calls is_grad_enabled"),
        (questions.branches, ""),
    ],
)
def test_what_a_graph_cannot_say(function: Callable[..., Any], sentence: str) -> None:
    assert asks_what_a_graph_cannot_say(function) == sentence
