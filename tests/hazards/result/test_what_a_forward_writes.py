"""Plain tensors that a forward writes are put back, TorchScript parts are leaves, and compiled code is not copied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, explain, fx_fuse
from tests.support.helpers import assert_same, trained, values


class Writes(nn.Module):
    """Adds to tensors that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.seen = torch.zeros(2, 3, dtype=torch.float64)
        self.held: Any = {"list": [torch.zeros(2, 3, dtype=torch.float64)]}
        self.more: Any = SimpleNamespace(last=torch.zeros(2, 3, dtype=torch.float64))

    def tensors(self) -> list[Tensor]:
        return [self.seen, self.held["list"][0], self.more.last]

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x
        self.held["list"][0].add_(x)
        self.more.last.copy_(x)
        return self.bn(self.lin(x)) + self.seen.sum()


@pytest.mark.parametrize("run", [fx_fuse, explain])
def test_plain_tensors_that_a_forward_writes_are_put_back(run: Any) -> None:
    model = trained(Writes())
    before = model.tensors()
    run(model, values(2, 3))
    assert all(one is other for one, other in zip(model.tensors(), before, strict=True))
    assert not any(tensor.any() for tensor in before)


class Opaque(nn.Module):
    """Has a condition on values, and calls TorchScript."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            x = -x
        return self.part(self.body(x))


def scripted() -> Any:
    return torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1)).double().eval())


def traced() -> Any:
    return torch.jit.trace(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1)).double().eval(), values(1, 4, 3, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("part", [scripted, traced])
@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("inputs", [False, True])
def test_a_torchscript_part_is_a_leaf(part: Any, opaque: bool, inputs: bool) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = (Opaque(part()) if opaque else nn.Sequential(*body, part())).double().eval()
    trained(model.body if isinstance(model, Opaque) else body)
    x = values(2, 3, 6, 6)
    fused = fx_fuse(model, x) if inputs else fx_fuse(model)
    assert len(Report.of(fused).folded) == 1
    assert_same(model, fused, x)


def test_kept_classes_do_not_run_what_was_compiled_from_the_original() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model.compile(backend="eager")
    x = values(2, 3, 6, 6)
    expected: Tensor = model(x)
    fused = fx_fuse(model, structure="module")
    with torch.no_grad():
        next(iter(model[0].parameters())).zero_()
        torch.testing.assert_close(fused(x), expected, rtol=1e-12, atol=1e-12)
    assert model._compiled_call_impl is not None
