"""What a function mentions is the same in every version of Python.

None of it needs torch: ``nox -s byte_code`` runs it on all versions that there are, without.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

import pytest

from fxfuse.modules.code import Mentions, mentions
from fxfuse.modules.method_bytecode import hands_on, own_names, returns_nothing
from fxfuse.modules.untraceable_bytecode import handles_exceptions
from tests.modules import first_parameter, functions

Function = Any
ROWS = {"norm": 1}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        *((functions.chain, True), (functions.chain_with_relu, True), (functions.chain_in_statements, True)),
        *((functions.chain_with_a_tap, False), (functions.chain_behind_an_argument, False)),
        (functions.chain_twice, False),
        *((functions.chain_with_an_operation, False), (functions.chain_in_a_branch, False)),
    ],
)
def test_one_layer_hands_on_to_another(function: Function, expected: bool) -> None:
    assert hands_on(function.__code__, "conv", "bn") is expected
    assert not hands_on(function.__code__, "bn", "conv")


@pytest.mark.parametrize(
    ("function", "called", "read", "others"),
    [
        (functions.chain, {"conv", "bn"}, set(), set()),
        (functions.chain_in_statements, {"conv", "bn"}, set(), set()),
        (
            functions.reads_and_calls,
            {"view", "last", "bn"},
            {"size", "conv", "block", "weight"},
            {"view", "last", "weight"},
        ),
        (functions.in_functions_inside, {"conv", "bn"}, set(), set()),
        (functions.under_another_name, {"conv"}, set(), {"conv"}),
    ],
)
def test_attributes(function: Function, called: set[str], read: set[str], others: set[str]) -> None:
    found = mentions(function.__code__)
    assert found.called == called
    assert found.read - {"first", "second"} == read
    assert found.others - found.variables - {"first", "second"} == others


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
    ("function", "own"),
    [
        (functions.chain, False),
        (functions.gives_a_default, False),
        (functions.goes_through_children, True),
        (functions.reads_its_state, True),
        (functions.dictionary, True),
    ],
)
def test_what_opens_a_module(function: Function, own: bool) -> None:
    found = mentions(function.__code__)
    assert (found.opens, found.opens_own) == (False, own)


@pytest.mark.parametrize(
    ("function", "hands"),
    [
        (functions.chain, False),
        (functions.chain_in_statements, False),
        (functions.gives_a_default, False),
        (functions.reads_attributes, False),
        (functions.computes_a_name, False),
        (functions.computes_a_whole_name, True),
        (functions.gets_by_a_function, True),
        (functions.keeps_itself, True),
        (functions.is_in_a_function_inside, False),
    ],
)
def test_what_hands_itself_on(function: Function, hands: bool) -> None:
    found = mentions(function.__code__)
    assert (found.hands_own or bool(found.passed)) is hands


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
    assert handles_exceptions(function.__code__) is expected


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


def test_the_names_of_keyword_arguments_and_the_number_of_elements_are_not_read() -> None:
    def made(self: Any, linear: Any) -> Any:
        return linear(2, len(self.layers), bias=True)

    found = mentions(made.__code__)
    assert not found.names - found.variables


def test_attributes_by_computed_names() -> None:
    def by_a_text(self: Any, x: Any) -> Any:
        return getattr(self, "conv")(x)  # noqa: B009 - this is the point

    def by_another(self: Any, x: Any) -> Any:
        for name in ("layer1", "layer2"):
            x = getattr(self, name)(x)
        return x

    def by_a_sum(self: Any, x: Any, name: Any) -> Any:
        layer = getattr(self, f"la{name}")
        return layer(x)

    def kept(self: Any, name: Any) -> Any:
        layer = getattr(self, name)
        return [layer, layer]

    found = [mentions(function.__code__) for function in (by_a_text, by_another, by_a_sum, kept)]
    assert [each.computes for each in found] == [set(), {"called"}, {"called"}, {"other"}]
    assert [each.hands_own or bool(each.passed) for each in found] == [False, True, False, True]
    assert [each.begins for each in found] == [set(), set(), {"la"}, set()]
    assert "conv" in found[0].texts
    assert {"layer1", "layer2"} <= found[1].texts


def test_what_more_is_done_with_than_to_call_it() -> None:
    def uses(self: Any, x: Any, run: Any, **more: Any) -> Any:
        if self.asked is None or isinstance(self.kind, int):
            return self.plain(x)
        held = self.kept
        return self.called(x, **more), run(self.given, x), run(self.cut[1:], x), self.outer.inner(x), held

    assert mentions(uses.__code__).handed & mentions(uses.__code__).names == {"kept", "given", "cut"}


@pytest.mark.parametrize("function", first_parameter.HANDS_ON)
def test_ways_to_hand_on_the_first_parameter(function: Function) -> None:
    assert mentions(function.__code__).hands_own


def test_functions_inside_may_use_the_first_parameter() -> None:
    found = mentions(first_parameter.uses_it_inside.__code__)
    assert not found.hands_own
    assert found.called == {"conv", "bn"}
    assert found.others.isdisjoint({"conv", "bn"})


@pytest.mark.parametrize("function", first_parameter.READS_PARAMETERS)
def test_who_gets_parameters_opens_the_module(function: Function) -> None:
    assert mentions(function.__code__).opens_own


def test_an_attribute_is_of_what_has_the_same_name_as_a_parameter() -> None:
    assert "conv" in mentions(first_parameter.of_a_child_of_its_own_name.__code__).others


def test_variables_are_no_attributes() -> None:
    found = mentions(first_parameter.with_variables_of_known_names.__code__)
    assert {"conv", "weight"} <= found.handed
    assert "weight" not in found.asked


def gives_only_what_is_taken(self: Any, **kwargs: Any) -> Any:
    taken = dict(inspect.signature(self.forward).parameters)
    return self(**{key: value for key, value in kwargs.items() if key in taken})


def test_the_parameters_of_a_signature_open_nothing() -> None:
    assert not mentions(gives_only_what_is_taken.__code__).opens
