"""Tables of embeddings take a norm in where nobody else reads them, and their rows stay as they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse, refold
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained


class Normed(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.table(x).transpose(1, 2))
        return y


class Tied(Model):
    """The usual language model: the last layer has the weight of the table."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.table(x).transpose(1, 2)).transpose(1, 2).relu())
        return y


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.table(x).transpose(1, 2)).mT - self.table(x.flip(0))
        return y


class Categories(Model):
    """Several columns of numbers, behind one another."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.cat([self.one(x[:, 0]), self.two(x[:, 1])], 1))
        return y


NUMBERS = torch.tensor([[0, 3, 1], [2, 2, 4]])


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("example", [False, True])
def test_a_table_takes_the_norm_in_with_its_shift(structure: Structure, padding: int | None, example: bool) -> None:
    model = trained(Normed(table=nn.Embedding(5, 4, padding_idx=padding), norm=nn.BatchNorm1d(4)))
    inputs = NUMBERS if example else None
    fused = assert_fuses(model, NUMBERS, folded=["norm"], structure=structure, example_inputs=inputs)
    assert "table.bias" not in fused.state_dict()


def test_tables_behind_one_another_each_take_their_part(structure: Structure) -> None:
    model = Categories(one=nn.Embedding(5, 3), two=nn.Embedding(5, 2), norm=nn.BatchNorm1d(5))
    assert_fuses(trained(model), NUMBERS, folded=["norm"], structure=structure, example_inputs=NUMBERS)


def test_a_scale_goes_into_the_table(structure: Structure) -> None:
    class Scaled(Model):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(F.dropout(self.table(x) * 4.0, training=self.training))
            return y

    model = trained(Scaled(table=nn.Embedding(5, 4), layer=nn.Linear(4, 3)))
    fused = fx_fuse(model, structure=structure)
    assert [(d.into, d.subject) for d in Report.of(fused).folded] == [(("table",), "constants")]
    assert not Report.of(fused).skipped  # a table and a layer are no two layers that could be one
    assert_same(model, fused, NUMBERS)


def test_a_table_that_others_read_is_not_copied(structure: Structure) -> None:
    table, last = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    last.weight = table.weight
    tied = trained(Tied(table=table, norm=nn.BatchNorm1d(4), last=last))
    twice = trained(Twice(table=nn.Embedding(5, 4), norm=nn.BatchNorm1d(4)))
    for model, inputs in ((tied, NUMBERS), (twice, NUMBERS)):
        fused = assert_fuses(model, inputs, left={"norm": Reason.WOULD_GROW}, structure=structure)
        assert "by a copy of the table" in Report.of(fused).skipped[0].detail
        program = torch.export.export(model, (inputs,))
        assert [d.reason for d in Report.of(fx_fuse(program)).norms_left] == [Reason.WOULD_GROW]


def test_rows_that_are_made_shorter_stay(structure: Structure) -> None:
    model = trained(Normed(table=nn.Embedding(5, 4, max_norm=0.5), norm=nn.BatchNorm1d(4)))
    with torch.no_grad():
        model(NUMBERS)  # which writes into the table
    assert_fuses(model, NUMBERS, left={"norm": Reason.NOT_LINEAR}, structure=structure)


def test_a_half_precise_table_is_rounded_once(structure: Structure) -> None:
    model = trained(Normed(table=nn.Embedding(5, 4), norm=nn.BatchNorm1d(4)))
    expected = model(NUMBERS)
    fused = fx_fuse(model.float(), structure=structure)
    with torch.no_grad():
        assert ((fused(NUMBERS) - expected).abs() / expected.abs().max()).max() < 1e-7


def test_a_large_table_is_rounded_block_by_block() -> None:
    model = nn.Sequential(nn.Embedding(3000, 200), nn.BatchNorm1d(200))
    numbers = torch.randint(3000, (50,))
    assert_same(trained(model), fx_fuse(model, numbers), numbers)


def test_other_values_are_folded_anew(structure: Structure) -> None:
    first, second = (trained(Normed(table=nn.Embedding(5, 4), norm=nn.BatchNorm1d(4))) for _ in range(2))
    fused = refold(fx_fuse(first, structure=structure), second.state_dict())
    assert torch.equal(fused(NUMBERS), fx_fuse(second, structure=structure)(NUMBERS))
    assert_same(second, fused, NUMBERS)
