"""The hazards of a folder on exported graphs: right, and folded, or refused for a reason.

Every model breaks one precondition; the numbers are those of the traced model, which tests/hazards has in full.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason
from tests.support.graph_forms import EXPORTED_FORMS, FORMS, Fused
from tests.support.helpers import Model, assert_equal, run, trained, values
from tests.support.samples import parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = (2, 3, 6, 6)


class Net(Model):
    """A forward that a test writes, over a few layers."""

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


def net(written: Callable[[Any, Tensor], Any], **others: Any) -> nn.Module:
    layers = {
        "conv": nn.Conv2d(3, 4, 3),
        "other": nn.Conv2d(3, 4, 3),
        "bn": nn.BatchNorm2d(4),
        "bn2": nn.BatchNorm2d(4),
        "gain": parameter(4, 1, 1),
        "shift": parameter(4, 1, 1, seed=1),
    }
    return trained(Net(**{**layers, **others}, written=written))


def in_all(model: nn.Module, x: Tensor, **options: Any) -> Iterator[tuple[str, Fused]]:
    """Fuse in each exported form; each result is right, also for another input."""
    expected, other = run(model, (x,)), torch.randn_like(x)
    for name in EXPORTED_FORMS:
        fused = FORMS[name].fuse(model, (x,), **options)
        assert_equal(expected, fused.run(x))
        assert_equal(run(model, (other,)), fused.run(other))
        yield name, fused


class SideBySide(Model):
    """Several nets in one model: exports cost more than folds."""

    def forward(self, x: Tensor) -> list[Any]:
        return [net(x) for net in self.nets.values()]


Decided = tuple[int, tuple["Reason | None", ...]]


@functools.cache
def decided(table: str) -> list[dict[str, Decided]]:
    """What happens to each net of a table, in each exported form: the number of folds, and the reasons for the rest."""
    torch.manual_seed(0)
    tables: dict[str, dict[str, Any]] = {"shared": SHARED, "arithmetic": ARITHMETIC}
    cases = tables[table]
    more = {"w1": parameter(4, 3, 3, 3), "w2": parameter(4, 3, 3, 3, seed=2)}
    nets = nn.ModuleDict({f"n{number}": net(case[0], **more) for number, case in enumerate(cases.values())})
    found = []
    for _, fused in in_all(SideBySide(nets=nets), values(*IMAGE)):
        by_net: dict[str, Decided] = {}
        for number, name in enumerate(cases):
            mine = [d for d in fused.report.decisions if f"{d.path}.".startswith(f"nets.n{number}.")]
            folds = sum(d.rule == "fold_upstream" and d.folded for d in mine)
            by_net[name] = (folds, tuple(d.reason for d in mine if not d.folded))
        found.append(by_net)
    return found


def assert_folds(model: nn.Module, folds: int, left: tuple[Reason, ...] = (), x: Tensor | None = None) -> None:
    """So many folds, and these reasons for the rest, in every exported form."""
    for name, fused in in_all(model, values(*IMAGE) if x is None else x):
        reasons = tuple(decision.reason for decision in fused.report.skipped)
        assert (fused.folds, reasons) == (folds, left), f"{name}:\n{fused.report}"


# -- 1, 3, 5: what is shared

S = Reason.SEVERAL_USES


def of_conv(written: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    """A forward that goes on with what the convolution gives."""
    return lambda m, x: written(m, m.conv(x))


def twice(y: Tensor) -> Tensor:
    return y + y.relu()


SHARED: dict[str, tuple[Callable[[Any, Tensor], Any], int, tuple[Reason, ...]]] = {
    "two norms on one convolution": (lambda m, x: m.bn(m.conv(x)) + m.bn2(m.conv(-x)), 2, ()),
    "one norm twice on one convolution": (lambda m, x: m.bn(m.conv(x)) * m.bn(m.conv(-x)).relu(), 2, ()),
    "with a norm and without": (lambda m, x: m.bn(m.conv(x)) * m.conv(-x).tanh(), 1, ()),
    "one norm on two convolutions": (lambda m, x: m.bn(m.conv(x)) * m.bn(m.other(x)), 2, ()),
    "the weight is read": (lambda m, x: m.bn(m.conv(x)) + m.conv.weight.sum(), 2, ()),
    "the bias is read": (lambda m, x: m.bn(m.conv(x)) + m.conv.bias.sum(), 2, ()),
    "the scale of the norm is read": (lambda m, x: m.bn(m.conv(x)) + m.bn.weight.sum(), 2, ()),
    "returned as well": (of_conv(lambda m, y: (m.bn(y), y)), 0, (S,)),
    "used twice by one": (of_conv(lambda m, y: torch.cat([m.bn(y), y, y])), 0, (S,)),
    "added to itself": (of_conv(lambda m, y: m.bn(y + y)), 0, (S,)),
    "read by two norms": (of_conv(lambda m, y: m.bn(y) * m.bn2(y)), 0, (S, S)),
    "the norm is used twice": (of_conv(lambda m, y: twice(m.bn(y))), 1, ()),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared(name: str) -> None:
    for by_net in decided("shared"):
        assert by_net[name] == SHARED[name][1:]


def test_two_convolutions_with_one_weight_and_one_bias() -> None:
    model = net(lambda m, x: m.bn(m.conv(x)) * m.bn2(m.other(x)))
    conv, other = model.get_submodule("conv"), model.get_submodule("other")
    other.weight, other.bias = conv.weight, conv.bias
    assert_folds(model, 2)
    for _, fused in in_all(model, values(*IMAGE), allow_copies=False):
        assert {decision.reason for decision in fused.report.skipped} == {Reason.SHARED}


def test_a_convolution_under_two_names() -> None:
    conv = nn.Conv2d(3, 4, 3)
    assert_folds(net(lambda m, x: m.bn(m.conv(x)) * m.bn2(m.other(x)), conv=conv, other=conv), 2)


def test_a_norm_under_two_names() -> None:
    norm = nn.BatchNorm2d(4)
    assert_folds(net(lambda m, x: m.bn(m.conv(x)) * m.bn2(m.other(x)), bn=norm, bn2=norm), 2)


# -- 9: transposed convolutions


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (4, 4), (12, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions(channels: int, groups: int, bias: bool) -> None:
    conv = nn.ConvTranspose2d(4, channels, 3, stride=2, output_padding=1, groups=groups, bias=bias)
    model = trained(nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU()))
    assert_folds(model, 1, x=values(2, 4, 5, 5))


# -- 10: modes


def frozen() -> nn.Module:
    """Everything is in training mode but for the norm, which is frozen."""
    model = net(lambda m, x: torch.relu(m.bn(m.conv(x)))).train()
    model.get_submodule("bn").eval()
    return model


def test_a_frozen_norm_in_a_model_in_training_mode() -> None:
    assert_folds(frozen(), 1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4)])
def test_a_norm_of_each_batch(norm: nn.Module) -> None:
    for name, fused in in_all(net(lambda m, x: torch.relu(m.bn(m.conv(x))), bn=norm), values(*IMAGE)):
        assert not fused.report.folded, name


def test_a_function_in_training_mode() -> None:
    def written(m: Any, x: Tensor) -> Tensor:
        mean, variance = m.bn.running_mean + 0, m.bn.running_var + 0
        return F.batch_norm(m.conv(x), mean, variance, training=True)

    for name, fused in in_all(net(written), values(*IMAGE)):
        assert not fused.report.folded, name


# -- 17, 18, 19: arithmetic, names, chains

# Operations of one forward that go together are one decision.
ARITHMETIC: dict[str, tuple[Callable[[Any, Tensor], Any], int]] = {
    "add with alpha": (lambda m, x: torch.add(m.conv(x), m.gain, alpha=3), 1),
    "add to a constant with alpha": (lambda m, x: torch.add(m.gain, m.conv(x), alpha=3), 1),
    "subtract from a constant": (lambda m, x: m.gain - m.conv(x), 1),
    "subtract with alpha": (lambda m, x: torch.sub(m.gain, m.conv(x), alpha=0.5), 1),
    "rsub": (lambda m, x: torch.rsub(m.conv(x), m.gain, alpha=2), 1),
    "rsub of a number": (lambda m, x: 2 - m.conv(x), 1),
    "a constant divided by the value": (lambda m, x: m.gain / m.conv(x), 0),
    "a number divided by the value": (lambda m, x: 2 / m.conv(x), 0),
    "floor": (lambda m, x: torch.div(m.conv(x), m.gain, rounding_mode="floor"), 0),
    "trunc": (lambda m, x: torch.div(m.conv(x), 0.3, rounding_mode="trunc"), 0),
    "an integer": (lambda m, x: m.conv(x) * 3, 1),
    "a power": (lambda m, x: m.conv(x) ** 2, 0),
    "one constant twice": (lambda m, x: m.conv(x) * m.gain + m.gain, 1),
    "one constant for two": (lambda m, x: m.conv(x) * m.gain + m.other(x) * m.gain, 2),
    "two functions without a bias": (lambda m, x: (F.conv2d(x, m.w1) + m.gain) * (F.conv2d(x, m.w2) + m.shift), 2),
    "the same function twice": (lambda m, x: (F.conv2d(x, m.w1) + m.gain) * (F.conv2d(x, m.w1) + m.shift), 2),
    "norm after norm": (lambda m, x: m.bn2(m.bn(m.conv(x))), 2),
    "a chain": (lambda m, x: m.bn((m.conv(x) * m.gain + m.shift) * 3 - m.shift), 2),
    "a chain with a break": (lambda m, x: m.bn(torch.relu(m.conv(x) * m.gain) * m.shift), 1),
    "a constant along the width": (lambda m, x: m.conv(x) * m.gain.flatten(), 0),
    "a constant for each sample": (lambda m, x: m.conv(x) * m.gain.reshape(4, 1, 1, 1)[:2], 0),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str) -> None:
    for by_net in decided("arithmetic"):
        assert by_net[name][0] == ARITHMETIC[name][1]
