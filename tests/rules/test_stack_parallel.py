"""Layers of one value as one layer and its parts, where that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.report.cost import Cost
from fxfuse.rules import DEFAULT_RULES, Rule
from tests.rules.merge_cases import TWO, Case, conv, kernels, norm, same
from tests.support.graph_forms import FORMS, Form
from tests.support.helpers import assert_equal, assert_same, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Callable

RULES: tuple[Rule | str, ...] = (*DEFAULT_RULES, "stack_parallel")


def attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = (layer(x).reshape(3, 5, 2, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
    y: Tensor = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(3, 5, -1)
    z: Tensor = m.o(y)
    return z


def linear(out: int = 4, *, bias: bool = True) -> Callable[[], nn.Module]:
    """A linear layer of four inputs."""
    return lambda: nn.Linear(4, out, bias)


QKV = Case(
    "attention", attention, {"q": linear(), "k": linear(bias=False), "v": linear(), "o": linear()}, (2, 0, 0), (3, 5, 4)
)
GATES = Case(
    "gates",
    lambda m, x: m.n(m.a(x)).sigmoid() * m.b(x).tanh() + m.c(x).relu(),
    {"a": same(3), "b": same(3, bias=False), "c": conv(4, 4, 3, padding=1), "n": norm},
    (1, 0, 2),
)


@pytest.mark.parametrize("case", [QKV, GATES], ids=lambda case: case.name)
def test_one_layer_is_left(case: Case) -> None:
    model, x = case.model(), values(*case.shape)
    with unchanged(model):
        fused = fx_fuse(model, rules=RULES)
    assert_same(model, fused, x)
    assert kernels(fused, x) == case.left
    assert {d.into for d in Report.of(fused).folded if d.rule == "stack_parallel"} == {
        ("q",) if case is QKV else ("a",)
    }
    assert kernels(fx_fuse(model), x)[0] > case.left[0], "it is no default"


def test_kernels_are_saved_and_nothing_else() -> None:
    report = Report.of(fx_fuse(QKV.model(), rules=RULES))
    (told,) = {(d.before, d.after) for d in report.folded if d.before is not None}
    parameters = 3 * 4 * 4 + 2 * 4
    assert told == (Cost(None, parameters, 3), Cost(None, parameters + 4, 1)), "k has no bias of its own"
    assert report.saved == Cost(None, -4, 2)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_in_every_form(form: Form) -> None:
    model, x = GATES.model(), values(*GATES.shape)
    fused = form.fuse(model, (x,), rules=RULES)
    assert_equal(model(x).detach(), fused.run(x))
    assert sum(d.rule == "stack_parallel" for d in fused.report.folded) == 2


def test_a_reader_that_would_meet_a_view_keeps_its_layer() -> None:
    model = Case("", lambda m, x: m.a(x).view(2, -1).sigmoid() + m.b(x).flatten(1).tanh(), TWO | {"b": same(3)}).model()
    report = Report.of(fx_fuse(model, rules=RULES))
    assert report.by_reason() == {Reason.LAYOUT: 1}, str(report)


@pytest.mark.parametrize("second", [same(1), same(3, groups=2), conv(4, 4, 3)], ids=["size", "groups", "padding"])
def test_other_layers_stay_by_themselves(second: Callable[[], nn.Module]) -> None:
    model = Case("", lambda m, x: m.a(x).sigmoid().sum() + m.b(x).tanh(), {"a": same(3), "b": second}).model()
    assert not Report.of(fx_fuse(model, rules=RULES))


def test_a_kept_class_is_left() -> None:
    model, x = GATES.model(), values(*GATES.shape)
    fused = fx_fuse(model, rules=RULES, structure="module")
    assert_same(model, fused, x)
    assert kernels(fused, x)[0] == 3
