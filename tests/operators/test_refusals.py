"""What each carrier must not let pass: affines for which its law does not hold, or of which nothing is known."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason
from fxfuse.operators.roles import Carrier
from fxfuse.report.reasons import Refusal
from tests.operators.calls import FirstItem, Function, Joined, Method, Part, Single
from tests.operators.sample import IMAGE, Along, Sample, along, called, carrier
from tests.operators.views import Known, seen
from tests.support.helpers import assert_equal, run
from tests.support.samples import parameter, randn

if TYPE_CHECKING:
    from fxfuse.algebra.affine import Affine

aten = torch.ops.aten
PER_CHANNEL, POSITIVE, SCALES = along(1), along(1, positive=True), along(1, keeps=0)
TURNED, ROWS, COLUMNS = along(1, keeps=0), along(2, positive=True, keeps=0), along(3, positive=True, keeps=0)
X = randn(*IMAGE)
BACK, ON = ("back",), ("on",)


@dataclass(frozen=True)
class Refused:
    """A call, and an affine that it refuses.

    Attributes:
        call: a module of which the forward is the call.
        affine: makes the affine: of the result on the way back, of the input on the way on.
        reason: why.
        ways: on which ways it is refused.
        known: what the graph knows of the values.
        x: the input.
    """

    call: nn.Module
    affine: Along
    reason: Reason = Reason.NOT_LINEAR
    ways: tuple[str, ...] = ("back", "on")
    known: Known = "sizes"
    x: Tensor = X

    def __str__(self) -> str:
        target = called(self.call)
        return f"{getattr(target, '__name__', target)}-{self.reason.name}-{self.known}"


ELEMENTWISE = [
    *(Refused(Single(nn.ReLU()), affine) for affine in (TURNED, POSITIVE, PER_CHANNEL)),
    *(Refused(Method("relu"), affine) for affine in (TURNED, POSITIVE)),
    *(Refused(Function(F.leaky_relu, 0.3), affine) for affine in (TURNED, POSITIVE)),
    *(Refused(Single(nn.PReLU().double()), affine) for affine in (TURNED, POSITIVE)),
    *(Refused(Function(aten.prelu.default, parameter(8)), affine) for affine in (TURNED, POSITIVE)),
    Refused(Function(F.dropout, 0.4, True), SCALES),
    Refused(Function(F.dropout, 0.4), SCALES),  # which is in training mode
    Refused(Function(aten.dropout.default, 0.4, True), SCALES),
    Refused(Method("float"), SCALES),
    Refused(Method("to", torch.float32), SCALES),
    Refused(Function(aten._to_copy.default, dtype=torch.float32), SCALES),
    Refused(Method("double"), SCALES, known="nothing"),
]
POOLS = [
    *(Refused(Single(nn.MaxPool2d(2)), affine) for affine in (TURNED, PER_CHANNEL, ROWS, COLUMNS)),
    *(Refused(Function(F.adaptive_max_pool2d, 2), affine) for affine in (TURNED, ROWS)),
    *(Refused(FirstItem(aten.max_pool2d_with_indices.default, [2, 2]), affine) for affine in (TURNED, ROWS)),
    *(Refused(Function(F.avg_pool2d, 2), affine) for affine in (ROWS, COLUMNS)),
    *(Refused(Single(nn.AdaptiveAvgPool2d(2)), affine) for affine in (ROWS, COLUMNS)),
    Refused(Single(nn.AdaptiveAvgPool1d(3)), along(2), x=randn(2, 8, 6)),
    Refused(Function(F.avg_pool2d, 2, divisor_override=3), SCALES),
    Refused(Single(nn.AvgPool2d(2, divisor_override=3)), SCALES),
    Refused(Function(aten.avg_pool2d.default, [2, 2], [2, 2], [0, 0], False, True, 3), SCALES),
    Refused(Single(nn.AvgPool2d(3, padding=1)), PER_CHANNEL, Reason.ZERO_PADDING),
    Refused(Function(F.avg_pool2d, 3, 2, (0, 1)), PER_CHANNEL, Reason.ZERO_PADDING),
    Refused(Function(F.avg_pool1d, 3, padding=1), PER_CHANNEL, Reason.ZERO_PADDING, x=randn(2, 8, 6)),
]
BORDERS = [
    Refused(Single(nn.ZeroPad2d(1)), PER_CHANNEL, Reason.ZERO_PADDING),
    Refused(Function(F.pad, (1, 0)), PER_CHANNEL, Reason.ZERO_PADDING),
    Refused(Function(F.pad, (1, 0), "constant", 3.0), SCALES, Reason.ZERO_PADDING),
    Refused(Function(aten.constant_pad_nd.default, [1, 0], 3), SCALES, Reason.ZERO_PADDING),
    Refused(Function(F.pad, (0, 0, 1, 0)), ROWS),
    Refused(Function(F.pad, (0, 0, 0, 0, 1, 0)), SCALES),
    Refused(Single(nn.ReflectionPad2d(1)), COLUMNS),
    Refused(Single(nn.CircularPad2d((0, 0, 1, 1))), COLUMNS),
    Refused(Function(F.pad, (0, 0, 1, 0), "replicate"), ROWS),
    *(Refused(Function(F.interpolate, scale_factor=2), affine) for affine in (ROWS, COLUMNS)),
    Refused(Function(F.interpolate, scale_factor=2, mode="bicubic"), ROWS),
    Refused(Function(aten.upsample_nearest2d.vec, None, [2.0, 2.0]), COLUMNS),
    Refused(Function(torch.roll, 1, -3), SCALES),
    Refused(Method("roll", (1, 2), (0, 3)), COLUMNS),
    Refused(Function(torch.roll, 1), SCALES),  # of all elements as one row
]
AXES = [
    Refused(Method("mean", (2, 3)), ROWS, ways=ON),
    Refused(Function(torch.mean, 1, True), SCALES, ways=ON),
    Refused(Method("mean"), SCALES, ways=ON),
    Refused(Method("mean", 2, dtype=torch.float64), SCALES),
    Refused(Method("squeeze"), PER_CHANNEL, x=randn(2, 8, 1, 4)),
    Refused(Method("squeeze", 2), PER_CHANNEL),
    Refused(Function(torch.squeeze, (0, 2)), PER_CHANNEL, x=randn(2, 8, 1, 4)),
    Refused(Method("expand", -1, -1, 6, -1), ROWS, ways=BACK, x=randn(2, 8, 1, 4)),
    Refused(Method("repeat", 1, 2, 1, 1), SCALES, ways=BACK),
    Refused(Method("repeat", 3, 1, 1, 1, 1), along(0), ways=BACK),
    Refused(Method("flatten", 1), PER_CHANNEL, Reason.UNKNOWN_SIZE, known="axes"),
    Refused(Method("flatten", 1), PER_CHANNEL, Reason.WOULD_GROW, ON, x=torch.ones(1, 2, 1024, 1025)),
    Refused(Method("view", 2, 192), PER_CHANNEL, Reason.UNKNOWN_SHAPE, known="axes"),
    Refused(Function(torch.channel_shuffle, 2), ROWS),
    Refused(Function(torch.pixel_shuffle, 2), COLUMNS),
    Refused(Function(torch.pixel_shuffle, 2), PER_CHANNEL, ways=ON),  # one of four is another
    Refused(Single(nn.PixelUnshuffle(2)), PER_CHANNEL, ways=BACK),
    Refused(Function(torch.pixel_unshuffle, 2), ROWS),
]
PIECES = [
    *(Refused(Function(operator.getitem, index), along(0)) for index in ((slice(None), None), (slice(None), [0, 1]))),
    Refused(Function(operator.getitem, torch.tensor([0, 1])), along(1)),
    Refused(Function(operator.getitem, (slice(None), slice(0, 8, 2))), along(1)),
    Refused(Function(operator.getitem, True), along(1)),  # which adds an axis
    Refused(Function(aten.slice.Tensor, 1, 0, 8, 2), PER_CHANNEL),
    Refused(Function(aten.slice.Tensor, -3, 0, 4), PER_CHANNEL, Reason.UNKNOWN_SIZE, BACK, "axes"),
    Refused(Method("narrow", -3, 0, 4), PER_CHANNEL, Reason.UNKNOWN_SIZE, BACK, "axes"),
    Refused(Part(Method("chunk", 2, -3), 0), PER_CHANNEL, Reason.UNKNOWN_SIZE, known="axes"),
    Refused(Part(Method("split", 3, -3), -1), PER_CHANNEL, Reason.UNKNOWN_SIZE, known="axes"),
    Refused(Part(Method("split", 3, -3), 0), PER_CHANNEL, Reason.UNKNOWN_SIZE, BACK, "axes"),
    Refused(Joined(torch.cat, 2, 1), PER_CHANNEL, Reason.UNKNOWN_SIZE, known="axes"),
]
OF_UNKNOWN_RANK = [
    Refused(call, PER_CHANNEL, Reason.UNKNOWN_SHAPE, known="nothing")
    for call in (
        *(Method("transpose", -1, -2), Method("movedim", 0, 1), Method("unsqueeze", 1), Method("squeeze", 1)),
        *(Method("mean", (2, 3), True), Method("select", 1, 0), Method("roll", 1, 1), Single(nn.ChannelShuffle(2))),
        *(Single(nn.Upsample(scale_factor=2)), Function(F.interpolate, scale_factor=2), Method("flatten", 1, -2)),
        *(Method("view", 2, 8, 24), Method("unflatten", -1, (2, 2)), Method("narrow", 1, 0, 4)),
        *(Part(Method("chunk", 2, 1), 0), Part(Method("unbind", 1), 0), Joined(torch.cat, 2, 1)),
        Joined(torch.stack, 2),
    )
]
REFUSED = [*ELEMENTWISE, *POOLS, *BORDERS, *AXES, *PIECES, *OF_UNKNOWN_RANK]


def view_of(call: nn.Module, x: Tensor, *, known: Known = "sizes") -> tuple[Carrier, Sample]:
    sample = Sample(call, call.function, x, "Join", (x, x)) if isinstance(call, Joined) else carrier(call, x)
    _, view = seen(sample, known=known)
    assert isinstance(view, Carrier)
    return view, sample


def passed(view: Carrier, affine: Affine, way: str) -> Affine:
    """What an affine of the result, or of the first input, becomes."""
    return view.pull(affine)[0][1] if way == "back" else view.push(affine, view.input)


@pytest.mark.parametrize(("case", "way"), [(case, way) for case in REFUSED for way in case.ways], ids=str)
def test_a_carrier_refuses_an_affine_that_may_not_pass(case: Refused, way: str) -> None:
    view, sample = view_of(case.call, case.x, known=case.known)
    shape = run(case.call, sample.inputs).shape if way == "back" else case.x.shape
    with pytest.raises(Refusal) as raised:
        passed(view, case.affine(shape), way)
    assert raised.value.reason is case.reason
    if case in OF_UNKNOWN_RANK:
        assert "is not known; " in str(raised.value)


@pytest.mark.parametrize("way", ["back", "on"])
@pytest.mark.parametrize(
    "call",
    [
        *(Method("permute", 0, 2, 3, 1), Method("transpose", 1, 2), Method("movedim", 1, 2), Method("flatten", 2)),
        *(Method("view", 2, 8, 24), Method("unflatten", 1, (2, 4)), Method("mean", (2, 3)), Method("mean", 2, True)),
        *(Method("repeat", 1, 1, 2, 1), Single(nn.Flatten(0, 1)), Method("mean", dim=[])),
    ],
    ids=lambda call: str(called(call)),
)
def test_an_affine_of_more_axes_than_the_value_would_enlarge_it(call: nn.Module, way: str) -> None:
    view, _ = view_of(call, X)
    affine = along(0)((3, *(run(call, (X,)).shape if way == "back" else X.shape)))
    with pytest.raises(Refusal) as raised:
        passed(view, affine, way)
    assert raised.value.reason is Reason.NOT_LINEAR


@pytest.mark.parametrize(
    ("call", "back", "on"),
    [
        (Method("mean", dim=[]), along(), along(1)),  # of everything
        (Method("mean", 1, keepdims=True), along(0, 2), along(0, 2)),  # NumPy's names for arguments
        (Part(Function(torch.chunk, 2, axis=1), 0), PER_CHANNEL, PER_CHANNEL),
        (Part(Function(torch.unbind, axis=1), 0), along(0), along(0, 1)),
        (Joined(torch.cat, 2, axis=1), along(0), along(0)),
        (Joined(torch.stack, 2, axis=1), along(0), along(0)),
        (Method("view", torch.float32), PER_CHANNEL, PER_CHANNEL),  # which are other numbers
    ],
)
@pytest.mark.parametrize("way", ["back", "on"])
def test_arguments_that_are_not_known_are_refused_or_understood(
    call: nn.Module, back: Along, on: Along, way: str
) -> None:
    try:
        view, sample = view_of(call, X)
        expected = run(call, sample.inputs)
        affine = back(expected.shape) if way == "back" else on(X.shape)
        there = passed(view, affine, way)
    except Refusal:
        return
    if way == "back":
        assert_equal(affine(expected), run(call, tuple(there(x) for x in sample.inputs)))
    else:
        assert_equal(there(expected), run(call, (affine(X), *sample.others)))
