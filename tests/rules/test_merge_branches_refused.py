"""Hazards 24, 25: branches that ``merge_branches`` leaves, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.rules.merge_cases import IMAGE, TWO, Case, conv, kernels, norm, pool, same
from tests.rules.merge_checks import assert_stays
from tests.support.helpers import assert_same, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure

R = Reason


def twice(m: Any, x: Tensor) -> Tensor:
    y = m.b(x)
    return m.a(x) + y + y.sigmoid()


def hosted_twice(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    return (y + m.b(x)) * y.sigmoid()


def written_between(m: Any, x: Tensor) -> Tensor:
    x = x * 2
    y = m.a(x)
    x.relu_()
    return y + m.b(x)


def written_into(m: Any, x: Tensor) -> Tensor:
    x = x.sigmoid()
    y = x.view(x.shape)
    x += m.a(x)
    return x * y


def asked(m: Any, x: Tensor) -> Tensor:
    y = m.b(x)
    return (m.a(x) + y) * y.shape[1]


REFUSED: list[tuple[Case, Reason, str]] = [
    (Case("taps that reach apart", lambda m, x: m.a(x) + m.b(x),
          {"a": conv(4, 4, (3, 1), padding=(1, 0)), "b": conv(4, 4, (1, 3), padding=(0, 1))}, (2, 0, 1)),
     R.WOULD_GROW, "from 96 to 144 multiply-adds for each position"),
    (Case("transposed and dilated", lambda m, x: m.a(x) + m.b(x),
          {"a": lambda: nn.ConvTranspose2d(4, 4, 3, padding=2, dilation=2),
           "b": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1)}, (2, 0, 1)), R.MISALIGNED, "transposed"),
    (Case("dilations", lambda m, x: m.a(x) + m.b(x),
          {"a": same(3), "b": conv(4, 4, 3, padding=2, dilation=2)}, (2, 0, 1)), R.MISALIGNED, "dilations 1 and 2"),
    (Case("padding modes", lambda m, x: m.a(x) + m.b(x),
          {"a": same(3), "b": same(3, padding_mode="circular")}, (2, 0, 1)), R.MISALIGNED, "zeros and circular"),
    (Case("a pool that counts otherwise", lambda m, x: m.a(x) + m.p(x),
          {"a": same(3), "p": pool(count_include_pad=False)}, (1, 0, 2)), R.MISALIGNED, "p counts what it pads"),
    (Case("a pool that rounds up", lambda m, x: m.a(x) + m.p(x),
          {"a": conv(4, 4, 3, 2, 1), "p": pool(stride=2, ceil_mode=True)}, (1, 0, 2)), R.MISALIGNED, "another way"),
    (Case("depth-wise and dense", lambda m, x: m.a(x) + m.b(x),
          {"a": same(5, groups=4), "b": same(1)}, (2, 0, 1)), R.WOULD_GROW, "from 116 to 400 multiply-adds"),
    (Case("used elsewhere", twice, TWO, (2, 0, 2)), R.SEVERAL_USES, "b is also used by sigmoid"),
    (Case("an activation inside", lambda m, x: m.a(x) + m.r(m.b(x)), {**TWO, "r": nn.ReLU}, (2, 0, 1)),
     R.NOT_LINEAR, "it follows r"),
    (Case("asked for its shape", asked, TWO, (2, 0, 2)), R.SEVERAL_USES, "b is also used by"),
    (Case("written into between", written_between, TWO, (2, 0, 2)), R.MUTATED, "is changed in place by relu"),
    (Case("written into at the end", written_into, TWO, (1, 0, 2)), R.MUTATED, "is changed in place by"),
    (Case("a scale before other branches", lambda m, x: 2 * (m.a(x) + x.sigmoid()) + m.b(x), TWO, (2, 0, 3)),
     R.MISALIGNED, "before a scale"),
    (Case("a rest with a factor", lambda m, x: m.a(x) + (m.b(x) - x.sigmoid()), TWO, (2, 0, 2)),
     R.MISALIGNED, "(the rest is added with a factor)"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "reason", "words"), REFUSED, ids=[case.name for case, _, _ in REFUSED])
def test_refused(case: Case, reason: Reason, words: str, structure: Structure) -> None:
    assert_stays(case, reason, words, structure)


def test_an_obstacle_on_one_way_does_not_keep_the_others_apart(structure: Structure) -> None:
    layers = {**TWO, "c": same(1), "r": nn.ReLU}
    model, x = Case("", lambda m, x: m.a(x) + m.b(x) + m.r(m.c(x)), layers).model(), values(*IMAGE)
    fused = fx_fuse(model, x, structure=structure)
    assert_same(model, fused, x)
    assert kernels(fused, x) == (2, 0, 1)


def test_where_sizes_are_known_all_positions_are_counted() -> None:
    case, _, _ = REFUSED[0]
    program = torch.export.export(case.model(), (values(*case.shape),))
    (refused,) = Report.of(fx_fuse(program)).skipped
    positions = case.shape[2] * case.shape[3]
    assert f"from {96 * positions:,} to {144 * positions:,} multiply-adds," in refused.detail


def fused_pair(change: Callable[[Any], object]) -> tuple[nn.Module, Report]:
    """A fused sum of two convolutions, after something was done to the model."""
    model = Case("", lambda m, x: m.a(x) + m.b(x), TWO).model()
    change(model)
    x = values(*IMAGE)
    fused = fx_fuse(model, x)
    assert_same(model, fused, x)
    return fused, Report.of(fused)


def test_a_hook() -> None:
    fused, report = fused_pair(lambda m: m.b.register_forward_hook(lambda *_: None))
    assert [d.reason for d in report.skipped] == [Reason.HOOKED], str(report)
    assert not report.folded
    del fused


def test_training_mode() -> None:
    _, report = fused_pair(lambda m: m.train())
    assert [d.reason for d in report.skipped] == [Reason.TRAINING], str(report)


def test_a_norm_in_training_mode() -> None:
    model: Any = Case("", lambda m, x: m.a(x) + m.n(x), {"a": same(3), "n": norm, "other": norm}).model()
    model.n.train()
    assert Reason.TRAINING in Report.of(fx_fuse(model)).by_reason()


def test_other_dtypes() -> None:
    model: Any = Case("", lambda m, x: m.a(x) + m.b(x.double()), TWO).model()
    model.a.float()
    x = values(*IMAGE, dtype=torch.float32)
    fused = fx_fuse(model, x)
    assert kernels(fused, x)[0] == 2
    assert_same(model, fused, x)


@pytest.mark.parametrize("scale", [1e30, 1e300])
def test_a_sum_that_is_not_finite(scale: float) -> None:
    model: Any = Case("", lambda m, x: m.a(x) * 1e200 + m.b(x) * 1e200, TWO).model()
    with torch.no_grad():
        model.a.weight.fill_(scale)
    report = Report.of(fx_fuse(model))
    folds = {d.rule for d in report.folded}
    assert ("merge_branches" in folds) == (scale == 1e30), str(report)
    if scale == 1e300:
        assert Reason.NOT_FINITE in report.by_reason() or not folds


def test_a_shared_layer_is_copied_or_left() -> None:
    def twice(m: Any, x: Tensor) -> Tensor:
        return (m.a(x) + m.b(x)).sigmoid() + m.a(x + 1)

    model, x = Case("", twice, TWO).model(), values(*IMAGE)
    fused = fx_fuse(model)
    assert_same(model, fused, x)
    assert kernels(fused, x)[0] == 2
    assert Report.of(fused).copied_bytes > 0
    kept = fx_fuse(model, allow_copies=False)
    assert_same(model, kept, x)
    assert [d.reason for d in Report.of(kept).skipped] == [Reason.SHARED]


def test_growth_is_allowed_on_request() -> None:
    model = Case("", lambda m, x: m.a(x) + m.b(x), {"a": same(5, groups=4), "b": same(1)}).model()
    x = values(*IMAGE)
    fused = fx_fuse(model, x, allow_growth=True)
    assert kernels(fused, x) == (1, 0, 0)
    assert_same(model, fused, x)
    assert Report.of(fused).saved.parameters == 4 * 25 + 4 * 4 + 4 + 4 - 4 * 4 * 25 - 4


def test_rules_are_chosen_by_name() -> None:
    model = Case("", lambda m, x: m.n(m.a(x) + m.b(x)), {**TWO, "n": norm}).model()
    x = values(*IMAGE)
    for rules, left in ((["fold_upstream"], (2, 0, 1)), (["merge_branches"], (1, 1, 0)), ([], (2, 1, 1))):
        fused = fx_fuse(model, rules=rules)
        assert kernels(fused, x) == left
        assert_same(model, fused, x)
