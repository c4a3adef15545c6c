"""Where memory runs out in a pass, nothing is changed, and the user is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fxfuse import FuseError, fx_fuse
from fxfuse.algebra.affine import Affine
from fxfuse.capture import check_on_inputs as prove
from fxfuse.graph.constants import Constants
from fxfuse.modules import example_inputs
from fxfuse.pipeline import examples
from tests.faults.forms import FORMS, as_before, described
from tests.faults.models import IMAGE, everything
from tests.support.helpers import trained, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS: dict[str, Callable[[], Exception]] = {
    "of the CPU": lambda: RuntimeError(CPU),
    "of a device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "of Python": MemoryError,
}


MANY = 10**9


class Exhausted(TorchDispatchMode):
    """Memory runs out when tensors are computed for the nth time."""

    def __init__(self, left: int, error: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it without annotations
        self.left = left
        self.error = error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.left -= 1
        if self.left == -1:
            raise self.error
        return func(*args, **(kwargs or {}))


def test_this_is_what_torch_raises() -> None:
    with pytest.raises(RuntimeError, match=r"DefaultCPUAllocator: (can't allocate|not enough) memory"):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *(("graph", error) for error in ERRORS),
        *((n, "of the CPU") for n in ("module", "in place", "FusePass", "program")),
    ],
)
def test_memory_that_runs_out(name: str, error: str) -> None:
    form = FORMS[name]
    right, argument, stopped = described(form.fuse(form.make())), form.make(), 0
    with Exhausted(MANY, MemoryError()) as counter:
        form.fuse(argument)
    total, argument = MANY - counter.left, form.make()
    for number in range(total // 4, total, total // 8):
        raised = ERRORS[error]()
        with as_before(argument), Exhausted(number, raised), pytest.raises(FuseError) as told:
            form.fuse(argument)
        assert "othing was changed" in str(told.value)
        if told.value.__cause__ is raised:
            assert "not enough memory" in str(told.value)
            stopped += 1
    assert stopped > 3
    assert described(form.fuse(argument)) == right


def two_norms() -> nn.Module:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("make", "cls", "name"),
    [(everything, Constants, "_evaluate"), (two_norms, Affine, "after"), (everything, prove._Recorder, "run_on")],
    ids=["a computed weight", "two norms as one", "the captured graph"],
)
def test_memory_that_runs_out_is_no_reason_for_a_norm_to_stay(
    make: Callable[[], nn.Module], cls: type, name: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raised = ERRORS[error]()
        raise raised

    monkeypatch.setattr(cls, name, fails)
    model = make()
    with unchanged(model), pytest.raises(FuseError, match="not enough memory"):
        fx_fuse(model, torch.ones(IMAGE, dtype=torch.float64))


def test_a_result_that_cannot_be_compared_for_want_of_memory_is_not_told_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, calls = everything(), list[object]()

    def reference(*args: Any) -> Any:
        calls.append(args)
        return original(*args) if len(calls) == 1 else original(Failing(), args[1])

    original = example_inputs.reference
    monkeypatch.setattr(examples, "reference", reference)
    with unchanged(model), pytest.raises(FuseError, match="can't allocate memory"):
        fx_fuse(model, torch.ones(IMAGE, dtype=torch.float64))


class Failing(nn.Module):
    """Has no memory."""

    def forward(self, _: Tensor) -> Tensor:
        raise RuntimeError(CPU)
