"""Functions that ask something of a value.

They are not in a test file, since pytest rewrites the assertions there to something else.
"""

from __future__ import annotations

import itertools
from typing import Any

CLASSES = (int,)


def asserts(value: Any) -> None:
    assert value


def asserts_and_says_why(value: Any) -> None:
    assert value, f"it is {id(value)}"


def asserts_at_the_end(value: Any) -> Any:
    other = [value]
    assert other[0]
    return other


def asserts_in_a_loop(value: Any) -> None:
    for _ in range(1):
        assert value


def asserts_a_number(value: Any) -> None:
    assert value == 4


def asserts_of_lists(value: Any) -> None:
    assert [value] == [0]


def branches(value: Any) -> int:
    return 1 if value else 2


def raises_another_error(value: Any) -> None:
    if not value:
        raise ValueError


def raises_and_says_why(value: Any) -> Any:
    other = [value]
    if other[0]:
        raise ValueError(f"it is {value.told}, and not {id(other):x}") from None
    return other


def raises_what_it_names(value: Any) -> None:
    if value:
        message = f"it is {value.told}"
        raise ValueError(message)


def raises_otherwise(value: Any) -> int:
    if value:
        return 1
    raise TypeError("it is nothing")


def raises_for_either(value: Any) -> None:
    if value or value:
        raise ValueError


def raises_for_one_of_two(value: Any) -> None:
    if value and not value.told:
        raise ValueError


def says_and_raises(value: Any) -> None:
    if not value:
        value.told.append("something")
        raise ValueError


def raises_in_a_loop(value: Any) -> None:
    if not value:
        for item in value.told:
            raise ValueError(item)


def negates(value: Any) -> bool:
    return not value


def repeats(value: Any) -> None:
    while value:
        break


def one_class(value: Any) -> bool:
    return isinstance(value, int)


def several_classes(value: Any) -> bool:
    return isinstance(value, (int, str, dict))


def class_of_a_module(value: Any) -> bool:
    return isinstance(value, itertools.chain)


def asserts_a_class(value: Any) -> None:
    assert isinstance(value, int)


def computed_class(value: Any) -> bool:
    return isinstance(value, CLASSES[0])


def asks_for_the_class(value: Any) -> Any:
    return value.__class__


def two_names(value: Any) -> Any:
    a, b = value
    return a + b


def three_names_of_an_attribute(value: Any) -> Any:
    a, b, c = [value][0]
    return a + b + c


def names_of_what_an_iterator_gives(value: Any) -> Any:
    a, b = map(list, (value, value))
    return a, b


def loops(value: Any) -> list[Any]:
    return [*value]


def compares_by_identity(value: Any, other: Any) -> bool:
    return value is other


def compares_with_none(value: Any) -> bool:
    return value is None


def asks_for_a_state(value: Any) -> bool:
    return bool(value.is_grad_enabled())
