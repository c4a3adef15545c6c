"""Hazard 24: merges: what is written into, who reads what a layer notes of itself, and numbers that must be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.rules import DEFAULT_RULES, Rule
from tests.rules.merge_cases import IMAGE, TWO, Case, conv, kernels, same
from tests.support.helpers import assert_same, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure

STACKED: tuple[Rule | str, ...] = (*DEFAULT_RULES, "stack_parallel")


def written(m: Any, x: Tensor) -> Tensor:
    y = x + m.a(x.sin())
    y += m.b(x.sin())
    return y


def written_later(m: Any, x: Tensor) -> Tensor:
    z = x.sin()
    y = x - m.a(z)
    y -= m.b(z)
    return y.relu_() + x


def written_beside(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.relu()
    z = x.sin()
    w = y + m.a(z)
    w += m.b(z)
    return w, y


@pytest.mark.parametrize("function", [written, written_later, written_beside])
def test_a_sum_in_place_never_writes_into_what_is_added(
    function: Callable[[Any, Tensor], Any], structure: Structure
) -> None:
    model, x = Case("", function, TWO).model(), values(*IMAGE)
    fused, before = fx_fuse(model, structure=structure), x.clone()
    assert_same(model, fused, x)
    with torch.no_grad():
        fused(x)
    assert torch.equal(x, before), "the input was written into"


def test_a_smaller_value_is_not_written_into(structure: Structure) -> None:
    model = Case("", lambda m, x: (x.mean((2, 3), keepdim=True) + m.a(x)).add_(m.b(x)), TWO).model()
    assert_same(model, fx_fuse(model, structure=structure), values(*IMAGE))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_what_a_module_notes_of_its_padding_changes_with_it(mode: Any, structure: Structure) -> None:
    layers = {"a": conv(4, 4, 1, padding=1, padding_mode=mode, bias=False), "b": conv(4, 4, 3)}
    model, x = Case("", lambda m, x: m.b(m.a(x)), layers).model(), values(*IMAGE)
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, x)
    # In a class of the user's, a layer keeps the numbers that it notes of itself.
    assert kernels(fused, x)[0] == (1 if structure == "graph" else 2)


def test_padding_as_a_word_that_means_something_else_for_the_larger_kernel(structure: Structure) -> None:
    options: dict[str, Any] = {"padding": "same", "padding_mode": "circular"}
    layers = {"a": conv(4, 4, 2, **options), "b": conv(4, 4, 3, groups=4, **options)}
    model = Case("", lambda m, x: m.a(x) + m.b(x), layers).model()
    assert_same(model, fx_fuse(model, structure=structure, allow_growth=True), values(*IMAGE))


class Functions(nn.Module):
    """Layers that are functions of weights of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.one, self.three = nn.Parameter(torch.randn(4, 4, 1, 1)), nn.Parameter(torch.randn(4, 4, 3, 3))
        self.halves = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.matrix = nn.Parameter(torch.randn(4, 4))
        self.padded = nn.Conv2d(4, 4, 1, padding=1, padding_mode="reflect", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "padding":
            return F.conv2d(F.conv2d(x, self.one, padding=1), self.three)
        if self.kind == "stride":
            return F.conv2d(F.conv2d(x, self.one, None, 2), self.three)
        if self.kind == "groups":
            return F.conv2d(x, self.halves, None, 1, 1, 1, 2) + F.conv2d(x, self.one)
        if self.kind == "mode":
            return F.conv2d(self.padded(x), self.three)
        y = x.flatten(0, 2)[:, :4]
        return torch.mm(y, self.matrix.t()) + torch.mm(y, self.one[..., 0, 0])


@pytest.mark.parametrize("kind", ["padding", "stride", "groups", "mode", "matrix"])
def test_arguments_of_functions_change_with_their_weights(kind: str, structure: Structure) -> None:
    model = trained(Functions(kind))
    assert_same(model, fx_fuse(model, structure=structure, allow_growth=True), values(*IMAGE))


class Reads(nn.Module):
    """Code of its own that asks a layer how large it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: Any = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)[:, : self.layers[0].out_channels]

    def mask(self, x: Tensor) -> Tensor:
        return torch.ones(self.layers[0].weight.shape[0]).to(x)


def test_code_that_is_kept_finds_the_layers_that_it_reads(structure: Structure) -> None:
    model, x = trained(Reads()), values(*IMAGE)
    fused: Any = fx_fuse(model, structure=structure)
    assert_same(model, fused, x)
    merged = any(d.rule == "merge_chain" for d in Report.of(fused).folded)
    assert merged == (structure == "graph")
    if structure == "module":
        assert fused.mask(x).shape == (6,)
        assert Reason.OWN_FORWARD in Report.of(fused).by_reason()


def flattened(m: Any, x: Tensor) -> Tensor:
    q = m.a(x)
    w = q.flatten()
    w += 1
    return q * m.b(x).tanh()


def made_contiguous(m: Any, x: Tensor) -> Tensor:
    q = m.a(x)
    q.contiguous().mul_(3)
    return q.sigmoid() * m.b(x).tanh()


@pytest.mark.parametrize("function", [flattened, made_contiguous])
def test_a_part_that_is_written_into_through_a_view_keeps_its_layer(function: Callable[[Any, Tensor], Tensor]) -> None:
    model = Case("", function, {"a": same(3), "b": same(3)}).model()
    fused = fx_fuse(model, rules=STACKED)
    assert_same(model, fused, values(*IMAGE))
    assert Report.of(fused).by_reason() == {Reason.MUTATED: 1}


def test_a_branch_that_stays_leaves_no_check() -> None:
    layers = {**TWO, "g": lambda: nn.ParameterList([torch.randn(1, 4, 1, 1)])}
    pooled = Case(
        "", lambda m, x: m.a(x) + m.b(x) + F.avg_pool2d(x * m.g[0], 3, 1, 1, count_include_pad=False), layers
    ).model()
    fused = fx_fuse(pooled)
    assert any(d.rule == "merge_branches" for d in Report.of(fused).folded)
    assert not any(d.assumed for d in Report.of(fused).folded)
    assert "require_rank" not in fused.code  # type: ignore[operator] # a text


def test_small_values_have_fewer_positions_than_their_stride_says() -> None:
    model = Case("", lambda m, x: m.b(m.a(x)), {"a": conv(4, 2, 3), "b": conv(2, 4, 1, 2)}).model()
    program = torch.export.export(model, (values(1, 4, 3, 3),))
    decision = Report.of(fx_fuse(program)).skipped[0]
    assert decision.reason is Reason.WOULD_GROW
    assert "from 80 to 144 multiply-adds" in decision.detail


def test_a_layer_that_is_called_twice_in_one_sum_is_counted_once() -> None:
    model = Case("", lambda m, x: m.a(x) + m.a(x) + x, {"a": same(3)}).model()
    fused = fx_fuse(model)
    assert_same(model, fused, values(*IMAGE))
    report = Report.of(fused)
    assert report.copied_bytes == 0
    assert (report.saved.parameters, report.saved.kernels) == (0, 3)


def test_weights_that_others_need_are_not_saved() -> None:
    def shared(m: Any, x: Tensor) -> Tensor:
        return (m.a(x) + m.b(x)).sigmoid() + m.a(x.sin()).tanh() + m.b(x.cos()).relu()

    model = Case("", shared, TWO).model()
    fused = fx_fuse(model)
    assert_same(model, fused, values(*IMAGE))
    more = sum(p.numel() for p in fused.parameters()) - sum(p.numel() for p in model.parameters())
    assert -Report.of(fused).saved.parameters == more == 4 * 4 * 9 + 4


class Named(nn.Module):
    """Gives a dictionary with a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.norm(self.conv(x))
        return {"out": y, "all": [y, (x, [y])]}


def test_a_graph_that_gives_dictionaries_and_lists_is_trusted() -> None:
    model, x = trained(Named()), values(*IMAGE)
    fused = fx_fuse(model, x, structure="graph")
    assert len(Report.of(fused).folded) == 1
    assert_same(model, fused, x)


def test_a_layer_that_others_call_as_well_is_stacked_once() -> None:
    model = Case(
        "", lambda m, x: m.a(x).sigmoid() + m.a(x).tanh() + m.b(x).relu(), {"a": same(3), "b": same(3)}
    ).model()
    fused = fx_fuse(model, rules=STACKED)
    assert_same(model, fused, values(*IMAGE))
    run(fused, (values(*IMAGE),))
