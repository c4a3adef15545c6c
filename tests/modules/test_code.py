"""What a function mentions is the same in every version of Python.

None of it needs torch: ``nox -s byte_code`` runs it on all versions that there are, without.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

import pytest

from fxfuse.modules import code
from fxfuse.modules.code import Mentions, mentions
from fxfuse.modules.method_steps import hands_on, own_names, returns_nothing
from tests.modules import functions

Function = Any
ROWS = {"norm": 1}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        *((functions.chain, True), (functions.chain_with_relu, True), (functions.chain_in_statements, True)),
        *(
            (functions.chain_with_a_tap, False),
            (functions.chain_behind_an_argument, False),
            (functions.chain_twice, False),
        ),
        *((functions.chain_with_an_operation, False), (functions.chain_in_a_branch, False)),
    ],
)
def test_one_layer_hands_on_to_another(function: Function, expected: bool) -> None:
    assert hands_on(function.__code__, "conv", "bn") is expected
    assert not hands_on(function.__code__, "bn", "conv")


@pytest.mark.parametrize(
    ("function", "called", "own_called", "own_read"),
    [
        (functions.chain, set(), {"conv", "bn"}, set()),
        (functions.chain_in_statements, set(), {"conv", "bn"}, set()),
        (functions.reads_and_calls, {"view", "last"}, {"bn"}, {"size", "conv", "block"}),
        (functions.in_functions_inside, set(), {"conv", "bn"}, set()),
        (functions.under_another_name, {"conv"}, set(), set()),
    ],
)
def test_attributes(function: Function, called: set[str], own_called: set[str], own_read: set[str]) -> None:
    found = mentions(function.__code__)
    assert found.called == called
    assert found.own_called == own_called
    assert found.own_read == own_read


def test_attributes_that_are_set() -> None:
    found = mentions(functions.stores.__code__)
    assert found.own_stored == {"seen", "old"}
    assert found.stored == {"mark"}


def test_names_in_texts() -> None:
    assert {"layer", "conv"} <= mentions(functions.names_in_texts.__code__).names


def test_variables() -> None:
    def function(x: Any) -> Any:
        return operator.add(x, ROWS["norm"])

    assert {"operator", "ROWS"} <= mentions(function.__code__).variables


def test_what_is_asked_for_its_shape_alone() -> None:
    assert "weight" in mentions(functions.asks_for_its_shape.__code__).asked
    assert "weight" not in mentions(functions.uses_it.__code__).asked


@pytest.mark.parametrize(
    ("function", "expected", "own"),
    [
        (functions.chain, set(), set()),
        (functions.gives_a_default, set(), set()),
        (functions.goes_through_children, set(), {"modules"}),
        (functions.computes_a_name, set(), {"children"}),
        (functions.reads_its_state, set(), {"tensors"}),
        (functions.dictionary, set(), {"modules"}),
    ],
)
def test_what_opens_a_module(function: Function, expected: set[str], own: set[str]) -> None:
    found = mentions(function.__code__)
    assert found.opens == expected
    assert found.own_opens == own


def test_attrgetter_opens_a_module() -> None:
    found = mentions(functions.gets_by_a_function.__code__)
    assert "modules" in found.opens or "attrgetter" in found.names


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there, whatever is called may be a value")
@pytest.mark.parametrize(
    ("function", "values", "parameters"),
    [
        (functions.chain, False, False),
        (functions.chain_in_statements, False, False),
        (functions.reads_and_calls, False, False),
        (functions.calls_an_element, True, False),
        (functions.calls_what_another_gives, True, False),
        (functions.calls_what_it_is_given, False, True),
    ],
)
def test_calls_of_values(function: Function, values: bool, parameters: bool) -> None:
    found = mentions(function.__code__)
    assert (found.calls_values, found.calls_parameters) == (values, parameters)


@pytest.mark.parametrize(
    "function", [functions.calls_an_element, functions.calls_what_another_gives, functions.calls_what_it_is_given]
)
def test_a_call_of_something_is_never_overlooked(function: Function) -> None:
    found = mentions(function.__code__)
    assert found.calls_values or found.calls_parameters


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (functions.chain, {"conv", "bn"}),
        (functions.reads_attributes, {"size", "scale"}),
        *(
            (functions.hands_itself_on, None),
            (functions.keeps_itself, None),
            (functions.is_in_a_function_inside, None),
            (functions.stores, None),
        ),
    ],
)
def test_attributes_of_the_first_parameter_alone(function: Function, names: set[str] | None) -> None:
    assert own_names(function) == names


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (functions.catches, True),
        (functions.finally_returns, True),
        (functions.opens, True),
        (functions.raises, False),
        (functions.chain, False),
    ],
)
def test_functions_that_may_go_on_after_an_exception(function: Function, expected: bool) -> None:
    assert code.handles_exceptions(function.__code__) is expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (functions.says_nothing, True),
        (functions.returns_none, True),
        (functions.returns_at_times, False),
        (functions.chain, False),
        (functions.yields, False),
    ],
)
def test_functions_that_return_nothing(function: Function, expected: bool) -> None:
    assert returns_nothing(function.__code__) is expected


def test_a_function_is_read_once() -> None:
    found: Mentions = mentions(functions.chain.__code__)
    assert mentions(functions.chain.__code__) is found


def test_elements_that_are_only_called() -> None:
    found = mentions(functions.calls_elements.__code__)
    assert found.own_elements == {"plain", "numbered", "zipped", "nested", "indexed", "last"}
    assert not found.own_read


def test_elements_that_may_be_opened() -> None:
    found = mentions(functions.opens_elements.__code__)
    assert not found.own_elements
    assert found.own_read >= {"looped", "handed", "later", "asked", "renamed", "set_again", "indexed", "kept"}


def test_the_names_of_keyword_arguments_and_the_number_of_elements_are_not_read() -> None:
    def made(self: Any, linear: Any) -> Any:
        return linear(2, len(self.layers), bias=True)

    found = mentions(made.__code__)
    assert not found.names


def test_attributes_by_computed_names() -> None:
    def of_a_configuration(self: Any, key: str) -> Any:
        return getattr(self.config, key)

    def from_texts(self: Any, x: Any) -> Any:
        for name in ("layer1", "layer2"):
            x = getattr(self, name)(x)
        return x

    def from_made_texts(self: Any, x: Any) -> Any:
        for number in range(2):
            name = f"layer{number}"
            x = getattr(self, name)(x)
        return x

    def of_a_given_name(self: Any, name: Any) -> Any:
        return getattr(self, name)

    assert mentions(of_a_configuration.__code__).computed == {"config"}
    assert not mentions(of_a_configuration.__code__).opens
    assert mentions(from_texts.__code__).own_opens == {"texts"}
    assert mentions(from_made_texts.__code__).own_opens == {"children"}
    assert mentions(of_a_given_name.__code__).own_opens == {"children"}
