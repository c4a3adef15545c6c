"""Hazard 24: merges of values that are asked for their shape, of layers called twice, and what was cached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from fxfuse.rules import DEFAULT_RULES
from tests.rules.merge_cases import IMAGE, TWO, Case, conv, kernels, same
from tests.support.helpers import assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure


def mean_by_hand(m: Any, x: Tensor) -> Any:
    both = torch.stack([m.a(x), m.b(x)])
    return both.sum(0) / both.shape[0]


def axes_of_a_stack(m: Any, x: Tensor) -> Any:
    both = torch.stack([m.a(x), m.b(x)])
    return both.sum(0) * both.ndim


def size_of_a_part(m: Any, x: Tensor) -> Any:
    part = x.mean((2, 3), keepdim=True) + m.b(x)
    return (part + m.a(x)) / part.shape[-1]


def axes_of_a_part(m: Any, x: Tensor) -> Any:
    part = x.mean() + m.b(x)
    return (part + m.a(x)) * part.ndim


def size_of_an_inner_sum(m: Any, x: Tensor) -> Any:
    part = m.b(x) + x
    return (m.a(x) + part).flatten(1)[:, : part.shape[1]]


@pytest.mark.parametrize(
    "function", [mean_by_hand, axes_of_a_stack, size_of_a_part, axes_of_a_part, size_of_an_inner_sum]
)
def test_shape_questions_are_answered_as_before(function: Callable[[Any, Tensor], Any], structure: Structure) -> None:
    model = Case("", function, TWO).model()
    fused = fx_fuse(model, values(*IMAGE), structure=structure)
    for batch in (2, 3):
        assert_same(model, fused, values(batch, *IMAGE[1:]))


class Block(nn.Module):
    """Calls two layers twice, with another one between."""

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.both = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.both(self.between(self.both(x).tanh()))
        return y


class Top(nn.Module):
    """Calls the block, which is captured by itself where it has a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.block(x))


@pytest.mark.parametrize("hooked", [False, True])
def test_a_layer_that_two_merges_change(hooked: bool, structure: Structure) -> None:
    model = trained(Top())
    if hooked:
        model.block.register_forward_hook(lambda *_: None)
    assert_same(model, fx_fuse(model, structure=structure), values(*IMAGE))


class TwoGeometries(nn.Module):
    """One layer behind two others of one weight, of which one pads."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 3)
        self.one, self.two = nn.Conv2d(4, 4, 1, padding=1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(self.one(x)), self.last(self.two(x))


def test_equal_weights_of_another_geometry_are_another_layer(structure: Structure) -> None:
    model = trained(TwoGeometries())
    assert_same(model, fx_fuse(model, structure=structure), values(*IMAGE))


def test_padding_that_is_a_word_by_default_stays_a_word_in_an_exported_program() -> None:
    layers = {"a": conv(4, 4, 1, padding=1, bias=False), "b": conv(4, 4, 3, padding="valid")}
    model, x = Case("", lambda m, x: m.b(m.a(x)), layers).model(), values(*IMAGE)
    assert_same(model, fx_fuse(torch.export.export(model, (x,))).module(), x)


class Linears(nn.Module):
    """Two chains of linear layers of one value, one of which is viewed, behind a fold that looked at layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.q2, self.k2 = (nn.Linear(6, 6) for _ in range(4))
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        z = self.norm(self.conv(z).permute(0, 1, 3, 2))
        return self.q2(self.q(x)).view(x.shape[0], -1), self.k2(self.k(x)).sigmoid(), z


def test_who_can_tell_a_layout_is_asked_again_after_a_chain() -> None:
    model = trained(Linears())
    fused = fx_fuse(model, rules=(*DEFAULT_RULES, "stack_parallel"))
    assert_same(model, fused, values(2, 4, 6), values(2, 4, 5, 5))


def test_branches_with_a_norm_of_the_value_merge_in_a_decomposed_program() -> None:
    def blocks(m: Any, x: Tensor) -> Tensor:
        y = m.stem(x).relu()
        y = (m.a(y) + m.b(y) + m.n(y)).relu()
        flat: Tensor = y.mean((2, 3), keepdim=True).flatten(1)
        return flat

    layers = {**TWO, "stem": same(3), "n": lambda: nn.BatchNorm2d(4)}
    model, x = Case("", blocks, layers).model(), values(*IMAGE)
    fused = fx_fuse(torch.export.export(model, (x,)).run_decompositions())
    assert_same(model, fused.module(), x)
    assert kernels(fused.module(), x)[:2] == (2, 0)


def test_a_scale_of_a_wider_dtype_keeps_the_dtype_of_the_result(structure: Structure) -> None:
    layers = {**TWO, "g": lambda: nn.ParameterList([torch.full((4, 1, 1), 2.0)])}
    model: Any = Case("", lambda m, x: (m.a(x) + m.b(x)) * m.g[0] + x, layers).model()
    model.a.float()
    model.b.float()
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE, dtype=torch.float32), rtol=1e-6)


def test_what_a_trained_branch_brings_is_trained() -> None:
    model: Any = Case("", lambda m, x: m.a(x) + m.b(x), TWO).model()
    model.a.requires_grad_(requires_grad=False)
    fused = fx_fuse(model)
    assert [p.requires_grad for p in fused.parameters()] == [True, True]
    assert Report.of(fused).saved.kernels == 2


def scaled_in_place(m: Any, x: Tensor) -> Any:
    return m.a(x) + m.b(x).mul_(2.0)


def scaled_by_channel_in_place(m: Any, x: Tensor) -> Any:
    return m.a(x) + m.b(x).mul_(torch.arange(1.0, 5.0, dtype=torch.float64)[:, None, None])


def scaled_twice_where_others_see_it(m: Any, x: Tensor) -> Any:
    y = m.b(x)
    return m.a(x) + y.mul_(2.0) + y


@pytest.mark.parametrize(
    ("function", "layers"),
    [
        (scaled_in_place, 1),
        (scaled_by_channel_in_place, 1),
        (scaled_twice_where_others_see_it, 2),
    ],
)
def test_a_scale_in_place_merges_where_nobody_else_sees_it(
    function: Callable[[Any, Tensor], Any], layers: int, structure: Structure
) -> None:
    model, x = Case("", function, TWO).model(), values(*IMAGE)
    fused = fx_fuse(model, x, structure=structure)
    assert_same(model, fused, x)
    assert kernels(fused, x)[0] == layers


def inner_sum_read_elsewhere(m: Any, x: Tensor) -> Any:
    part = m.a(x) + m.b(x)
    return (part + m.c(x)) * part.sigmoid()


@pytest.mark.parametrize(
    ("function", "layers", "left"),
    [
        (inner_sum_read_elsewhere, {**TWO, "c": same(1)}, (2, 0, 2)),
        (lambda m, x: torch.cat([m.a(x), m.b(x)]), {"a": same(3), "b": same(3)}, (2, 0, 1)),
        (lambda m, x: torch.cat([m.a(x), m.b(x)], 1), {"a": same(3), "b": same(3)}, (1, 0, 0)),
    ],
)
def test_only_what_nobody_else_reads_and_what_lies_along_the_channels(
    function: Callable[[Any, Tensor], Any], layers: Any, left: tuple[int, int, int], structure: Structure
) -> None:
    model, x = Case("", function, layers).model(), values(*IMAGE)
    fused = fx_fuse(model, x, structure="graph")
    assert_same(model, fused, x)
    assert kernels(fused, x) == left
    assert Report.of(fused).saved.kernels == sum(kernels(model, x)) - sum(left)
    assert_same(model, fx_fuse(model, x, structure=structure), x)


def test_vectors_are_put_together_along_their_only_axis() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return torch.cat([m.a(x), m.b(x)])

    layers: dict[str, Callable[[], nn.Module]] = {"a": lambda: nn.Linear(4, 3), "b": lambda: nn.Linear(4, 2)}
    model, x = Case("", function, layers).model(), values(4)
    program = torch.export.export(model, (x,))
    fused = fx_fuse(program).module()
    assert_same(model, fused, x)
    assert kernels(fused, x) == (1, 0, 0)


def test_the_statistics_of_a_norm_are_saved() -> None:
    model = Case("", lambda m, x: m.a(x) + m.n(x), {"a": same(3), "n": lambda: nn.BatchNorm2d(4)}).model()
    assert Report.of(fx_fuse(model)).saved.parameters == 4 * 4


@pytest.mark.parametrize(
    ("function", "layers", "told"),
    [
        (lambda m, x: m.a(x) + m.b(x), TWO, ("b", ("a",))),
        (lambda m, x: m.a(x) + m.i(m.b(x)), {**TWO, "i": nn.Identity}, ("b", ("a",))),
        (lambda m, x: m.b(m.a(x)), {"a": conv(4, 8, 1), "b": conv(8, 3, 3)}, ("a", ("b",))),
        (lambda m, x: m.b(m.a(x)), {"a": conv(4, 3, 3), "b": conv(3, 3, 1)}, ("b", ("a",))),
    ],
)
def test_what_is_gone_is_told_and_what_is_left_is_not(
    function: Callable[[Any, Tensor], Any], layers: Any, told: tuple[str, tuple[str, ...]]
) -> None:
    (decision,) = Report.of(fx_fuse(Case("", function, layers).model())).folded
    assert (decision.path, decision.into) == told
