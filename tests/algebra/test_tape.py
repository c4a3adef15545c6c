"""Notes of how tensors are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fxfuse.algebra.linear_map import LinearMap, are_finite
from fxfuse.algebra.tape import Tape, Value, parameter_of, taken_number
from tests.support.samples import randn


class Seen(TorchDispatchMode):
    """What operations another mode gets to see."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_operations_are_noted_with_what_they_read_and_make() -> None:
    given = randn(3)
    with Tape() as tape:
        made = torch.cat([given, given * 2])
        made += 1
        assert bool((made > 100).any()) is False
    names = [step.name for step in tape.steps]
    assert names[:3] == ["aten.mul.Tensor", "aten.cat.default", "aten.add_.Tensor"]
    product, joined, added = tape.steps[:3]
    assert joined.args == ([product.args[0], product.result],)
    assert added.result == joined.result == tape.value_of(made)
    assert tape.given == {product.args[0]: given}
    assert tape.steps[-1].result is False


def test_a_step_of_our_own_is_noted_alone_and_other_modes_see_inside() -> None:
    with Seen() as outside, Tape() as tape:
        assert are_finite(randn(2))
    assert [step.name for step in tape.steps if not step.name.startswith("aten")] == ["are_finite"]
    assert "aten.sum.default" in outside.names
    assert "aten.sum.default" not in [step.name for step in tape.steps]


def test_a_step_that_fails_leaves_the_recording_on() -> None:
    with Tape() as tape:
        with pytest.raises(RuntimeError):
            LinearMap(randn(1, 2, 3), None).rounded(torch.empty(2, 4))
        randn(2) + 1
    assert tape.steps[-1].name == "aten.add.Tensor"


def test_a_parameter_has_the_number_of_its_tensor_until_it_is_taken() -> None:
    with Tape() as tape:
        made = randn(2) * 2
        parameter = parameter_of(made, requires_grad=False)
        parameter + 1
    assert tape.steps[-1].args[0] == tape.value_of(made) == taken_number(parameter)
    assert taken_number(parameter) is None
    assert type(tape.value_of(made)) is Value


def test_another_recording_knows_nothing_of_it() -> None:
    with Tape():
        made = randn(2) * 2
    with Tape() as second:
        made + 1
    assert next(iter(second.given.values())) is made
