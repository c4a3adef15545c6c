"""Hazard 31: after the pass: store, copy, move, trace, script, export, compile, fuse again."""

from __future__ import annotations

import copy
import io
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import (
    Model,
    Structure,
    assert_equal,
    assert_same,
    folds,
    reasons,
    run,
    trained,
    unchanged,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def doubled(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output * 2


class Plain(Model):
    kind = "plain"

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()

    def label(self) -> str:
        return f"{self.note} {self.training}"


class Functions(Model):
    """Its own forward changes, so that a class has to be made for it."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(F.conv2d(x, self.weight), self.mean, self.var)
        return torch.relu(y) + y.size(0)


class Around(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * 2


class Optional(Model):
    """Keeps its forward, and folds hold for one value of an argument only."""

    def forward(self, x: Tensor, *, raw: bool = False) -> Tensor:
        y = self.conv(x)
        return y if raw else self.bn(y)


def layers() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)}


def functions() -> Functions:
    tensors = {"mean": values(4) + 2, "var": values(4).exp()}
    return Functions(weight=nn.Parameter(values(4, 3, 3, 3)), **tensors).eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: trained(Plain(**layers(), note="mine")),
    "functions": functions,
    "functions below": lambda: Around(block=functions()).eval(),
    "assumed": lambda: trained(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU())),
    "optional": lambda: trained(Optional(**layers())),
}


class Case:
    """A model that was fused, with inputs for it."""

    def __init__(self, name: str, structure: Structure) -> None:
        self.model = MODELS[name]()
        self.inputs = values(*(2, 3, 6, 6)[: 3 if name == "assumed" else 4])
        with unchanged(self.model):
            self.fused: Any = fx_fuse(self.model, structure=structure)
        assert len(folds(self.fused)) == 1

    def assert_same(self, other: Any, rtol: float = 1e-12) -> None:
        with unchanged(self.fused):
            assert_equal(run(self.model, (self.inputs,)), run(other, (self.inputs,)), rtol=rtol)


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, structure: Structure) -> Case:
    return Case(request.param, structure)


# -- copies


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = [pickled, saved, copy.deepcopy, copy.copy]


@pytest.mark.parametrize("copied", COPIES)
def test_it_can_be_stored_and_copied(case: Case, copied: Callable[[nn.Module], nn.Module]) -> None:
    other = copied(case.fused)
    case.assert_same(other)
    assert type(other).__name__ == type(case.fused).__name__
    assert Report.of(other) == Report.of(case.fused)
    assert list(other.state_dict()) == list(case.fused.state_dict())
    assert [m.training for m in other.modules()] == [m.training for m in case.fused.modules()]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_keeps_attributes_methods_and_hooks(structure: Structure, copied: Callable[[nn.Module], Any]) -> None:
    case = Case("plain", structure)
    for module in (case.model, case.fused):
        module.register_forward_hook(doubled)
    other = copied(case.fused)
    case.assert_same(other)
    assert (other.note, other.label()) == ("mine", "mine False")
    other.note = "other"
    assert (other.label(), case.fused.label()) == ("other False", "mine False")


@pytest.mark.parametrize("copied", [pickled, saved, copy.deepcopy])
def test_a_deep_copy_shares_nothing(case: Case, copied: Callable[[nn.Module], nn.Module]) -> None:
    other = copied(case.fused)
    with unchanged(case.fused), torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.add_(1)
        other.train()


def test_a_copy_of_a_copy_is_the_same(case: Case) -> None:
    case.assert_same(pickled(copy.deepcopy(saved(copy.copy(case.fused)))))


def test_the_state_can_be_stored_with_weights_only(case: Case, tmp_path: Path) -> None:
    torch.save(case.fused.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(case.fused)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    case.assert_same(other)


# -- moves


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_can_be_moved_to_another_dtype(case: Case, dtype: torch.dtype) -> None:
    moved = copy.deepcopy(case.fused).to(dtype)
    assert {tensor.dtype for tensor in (*moved.parameters(), *moved.buffers())} == {dtype}
    given = run(moved, (case.inputs.to(dtype),))
    assert given.dtype is dtype
    assert_equal(run(case.model, (case.inputs,)), given.double(), rtol=16 * torch.finfo(dtype).eps)


def test_it_can_be_moved_to_another_device(case: Case) -> None:
    moved = copy.deepcopy(case.fused).to("meta")
    assert all(tensor.is_meta for tensor in (*moved.parameters(), *moved.buffers()))
    assert run(moved, (case.inputs.to("meta"),)).shape == run(case.model, (case.inputs,)).shape


def test_its_mode_can_be_changed(case: Case) -> None:
    other = copy.deepcopy(case.fused)
    case.assert_same(other.train().eval())
    assert not any(module.training for module in other.modules())


# -- other tools


@pytest.mark.parametrize("name", ["plain", "functions", "functions below", "assumed"])
def test_it_can_be_traced_by_fx(structure: Structure, name: str) -> None:
    case = Case(name, structure)
    case.assert_same(fx.symbolic_trace(case.fused))


@pytest.mark.filterwarnings("ignore:.*(torch.jit|deprecated)")
def test_it_can_be_traced_by_jit(case: Case) -> None:
    case.assert_same(torch.jit.trace(case.fused, case.inputs))


@pytest.mark.filterwarnings("ignore:.*(torch.jit|deprecated)")
@pytest.mark.parametrize("name", ["plain", "functions below", "assumed"])
def test_it_can_be_scripted(structure: Structure, name: str) -> None:
    case = Case(name, structure)
    torch.jit.script(case.model)
    case.assert_same(torch.jit.script(case.fused))


@pytest.mark.parametrize("strict", [True, False])
def test_it_can_be_exported(case: Case, *, strict: bool) -> None:
    program = torch.export.export(case.fused, (case.inputs,), strict=strict)
    case.assert_same(program.module())


def test_it_can_be_exported_for_any_batch(case: Case) -> None:
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(case.fused, (case.inputs,), dynamic_shapes=dynamic)
    other = torch.cat([case.inputs, case.inputs + 1, case.inputs - 1])
    assert_equal(run(case.model, (other,)), run(program.module(), (other,)))


def test_it_can_be_compiled_in_one_graph(case: Case) -> None:
    torch.compiler.reset()
    case.assert_same(torch.compile(case.fused, backend="eager", fullgraph=True))


def test_it_can_be_part_of_another_model(case: Case, structure: Structure) -> None:
    model = nn.Sequential(case.fused, nn.Identity()).eval()
    fused = fx_fuse(model, structure=structure)
    assert (folds(fused), reasons(fused)) == ([], set())
    assert_same(model, fused, case.inputs)


# -- again


@pytest.mark.parametrize("again", ["graph", "module"])
def test_fusing_again_changes_nothing(case: Case, again: Structure) -> None:
    with unchanged(case.fused):
        other = fx_fuse(case.fused, structure=again)
    assert (folds(other), reasons(other)) == ([], set())
    assert list(other.state_dict()) == list(case.fused.state_dict())
    case.assert_same(other)
