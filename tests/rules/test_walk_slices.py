"""``fold_upstream`` through slices, items and parts: what they drop is free, and what they keep is one layer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, assert_fuses, assert_same, trained, values
from tests.support.samples import assert_refused, graph_text, lines


class Cut(Model):
    """A layer, a part of what it gives, and a norm."""

    def __init__(self, layer: nn.Module, norm: nn.Module, index: Any) -> None:
        super().__init__(layer=layer, bn=norm)
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.layer(x)[self.index])


EVERY = slice(None)
LINES: list[Any] = [(EVERY, EVERY, slice(None, -2)), (EVERY, EVERY, slice(1, None, 2)), (slice(0, 1), EVERY, slice(3))]
LINES += [(EVERY, slice(1, 3), EVERY), (EVERY, slice(1, 3), EVERY, Ellipsis)]


def exported(model: nn.Module, x: Tensor) -> Any:
    return fx_fuse(torch.export.export(model, (x,)))


@pytest.mark.parametrize("index", LINES, ids=str)
def test_a_norm_passes_slices_of_a_convolution_that_pads(index: Any) -> None:
    channels = 2 if index[1] != EVERY else 4
    model = trained(Cut(nn.Conv1d(3, 4, 3, padding=2), nn.BatchNorm1d(channels), index))
    assert_fuses(model, values(2, 3, 8), folded=["bn"])
    program = exported(model, values(2, 3, 8))
    assert len(Report.of(program).folded) == 1
    assert_same(model, program.module(), values(2, 3, 8))


def test_a_slice_stays_behind_the_fold() -> None:
    model = trained(Cut(nn.Conv1d(3, 4, 3, padding=2), nn.BatchNorm1d(4), (EVERY, EVERY, slice(None, -2))))
    assert graph_text(assert_fuses(model, values(2, 3, 8), folded=["bn"])) == lines("""
        x = <input>
        layer = self.layer(x)
        getitem = getitem(layer, (slice(None, None, None), slice(None, None, None), slice(None, -2, None)))
        return getitem
    """)


def test_a_slice_up_to_a_computed_position() -> None:
    class Cropped(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(x)[:, :, : x.shape[2]])

    assert_fuses(
        trained(Cropped(conv=nn.Conv1d(3, 4, 3, padding=2), bn=nn.BatchNorm1d(4))), values(2, 3, 8), folded=["bn"]
    )


@pytest.mark.parametrize("parts", [lambda y: y.split(3, 2), lambda y: y.chunk(2, -1)])
def test_every_part_has_the_same_norm(parts: Any) -> None:
    class Program(Model):
        def forward(self, x: Tensor) -> Tensor:
            one, other = parts(self.conv(x))
            return self.bn(one) - self.bn(other)

    model = trained(Program(conv=nn.Conv1d(3, 4, 3), bn=nn.BatchNorm1d(4)))
    program = exported(model, values(2, 3, 8))
    assert not Report.of(program).skipped
    assert_same(model, program.module(), values(2, 3, 8))


def test_parts_with_other_norms_keep_them() -> None:
    class Two(Model):
        def forward(self, x: Tensor) -> Tensor:
            one, other = self.conv(x).split(3, 2)
            return self.a(one) - self.b(other)

    model = trained(Two(conv=nn.Conv1d(3, 4, 3), a=nn.BatchNorm1d(4), b=nn.BatchNorm1d(4)))
    with torch.no_grad():
        model.b.weight += 1
    program = exported(model, values(2, 3, 8))
    assert len(Report.of(program).skipped) == 2
    assert_same(model, program.module(), values(2, 3, 8))


def test_a_rest_that_somebody_reads_keeps_the_norm() -> None:
    class Read(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y[:, :, :-2]).sum() + y[:, :, -2:].sum()

    model = trained(Read(conv=nn.Conv1d(3, 4, 3, padding=2), bn=nn.BatchNorm1d(4)))
    assert_refused(model, Reason.UNKNOWN_SIZE, values(2, 3, 8))


@pytest.mark.parametrize(("index", "channels"), [((EVERY, slice(1, None)), 3), ((slice(1, None),), 4)], ids=str)
def test_a_slice_of_what_may_have_two_axes_or_three_leaves_a_check(index: Any, channels: int) -> None:
    model = trained(Cut(nn.Linear(3, 4), nn.BatchNorm1d(channels), index))
    fused = assert_fuses(model, values(5, 3), folded=["bn"])
    with pytest.raises(Exception, match="axes"):
        fused(values(5, 4, 3))
    assert_refused(model, Reason.UNKNOWN_SHAPE, guards=False)


def test_a_transposition_proves_the_axes_that_it_names() -> None:
    class Transposed(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.lin(x).transpose(1, 2)).transpose(1, 2)

    fused = assert_fuses(trained(Transposed(lin=nn.Linear(3, 4), bn=nn.BatchNorm1d(4))), values(2, 5, 3), folded=["bn"])
    assert "require_rank" not in str(fused.graph)


def test_a_transposition_that_two_axes_have_too_proves_nothing() -> None:
    class Transposed(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.lin(x).transpose(-1, -2))

    report = Report.of(fx_fuse(trained(Transposed(lin=nn.Linear(3, 4), bn=nn.BatchNorm1d(4)))))
    assert [decision.reason for decision in report.skipped] == [Reason.UNKNOWN_SHAPE]


class Viewed(Model):
    """The last axis of a linear layer is divided into channels and pixels."""

    sizes = (-1, 4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.lin(x).view(self.sizes))


def test_a_view_that_divides_the_last_axis_alone() -> None:
    assert_fuses(trained(Viewed(lin=nn.Linear(3, 36), bn=nn.BatchNorm2d(4))), values(2, 3), folded=["bn"])


def test_a_view_that_divides_more_than_the_last_axis() -> None:
    assert_refused(trained(Viewed(lin=nn.Linear(3, 12), bn=nn.BatchNorm2d(4))), Reason.UNKNOWN_SHAPE)


def test_groups_that_are_the_size_of_an_axis() -> None:
    class Filtered(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(torch.conv2d(y, self.filters, groups=y.shape[1]))

    model = Filtered(conv=nn.Conv2d(3, 4, 3), filters=values(4, 1, 3, 3), bn=nn.BatchNorm2d(4))
    assert_fuses(trained(model), values(2, 3, 8, 8), folded=["bn"])


def test_groups_of_which_nobody_knows_the_number() -> None:
    class Filtered(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(torch.conv2d(x, self.filters, groups=x.shape[1]))

    model = trained(Filtered(filters=values(4, 1, 3, 3), bn=nn.BatchNorm2d(4)))
    assert_refused(model, Reason.COMPUTED)
