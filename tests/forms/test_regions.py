"""Graphs that the graph of an exported program calls: norms in them fold, or are told."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.utils.checkpoint import checkpoint

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, assert_equal, run, trained, values

SHAPE = (2, 3, 7, 7)


def blocks() -> dict[str, nn.Module]:
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return {"a": first, "b": nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))}


class Autocast(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.a(x)
        return self.b(x)


class NoGradient(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


class Nested(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            with torch.autocast("cpu", enabled=False):
                x = self.a(x)
            return self.b(x)


class Checkpointed(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(checkpoint(self.a, x, use_reentrant=False))


class OnlyInside(Model):
    """The convolution is in the region, the norm behind it: the fold would have to cross the border."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a[0](x)
        return self.b(self.a[1](x))


def fused_program(model: nn.Module, x: Tensor, **options: Any) -> tuple[Any, nn.Module]:
    program = torch.export.export(model, (x,))
    before = str(program.graph_module.print_readable(False))
    fused = fx_fuse(program, **options)
    assert program.graph_module.print_readable(False) == before
    return fused, fused.module()


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("cls", [Autocast, NoGradient, Nested, Checkpointed])
def test_norms_in_a_region_fold(cls: type[Model], inputs: bool) -> None:
    model, x = trained(cls(**blocks())), values(*SHAPE)
    program, fused = fused_program(model, x, **({"example_inputs": x} if inputs else {}))
    assert_equal(run(model, (x,)), run(fused, (x,)))
    report = Report.of(program)
    assert ([d.path for d in report.folded], report.skipped) == (["a.1", "b.2"], ())
    assert set(program.state_dict) == {"a.0.weight", "a.0.bias", "b.1.weight", "b.1.bias"}


@pytest.mark.parametrize("cls", [Autocast, Nested])
def test_a_program_with_regions_can_be_saved_and_fused_again(cls: type[Model]) -> None:
    model, x = trained(cls(**blocks())), values(*SHAPE)
    program, fused = fused_program(model, x)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    assert_equal(run(fused, (x,)), run(torch.export.load(buffer).module(), (x,)), rtol=0.0)
    assert not Report.of(fx_fuse(program)).decisions


def test_nothing_folds_across_the_border_of_a_region() -> None:
    model, x = trained(OnlyInside(**blocks())), values(*SHAPE)
    program, fused = fused_program(model, x)
    assert_equal(run(model, (x,)), run(fused, (x,)))
    assert {d.path: d.reason for d in Report.of(program).skipped} == {"a.1": Reason.NOT_LINEAR}


class Shared(Model):
    """A region and the code around it use one convolution, each with a norm of its own."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        with torch.no_grad():
            z = self.b[2](self.a[0](x))
        return y, z


@pytest.mark.parametrize("copies", [False, True])
def test_a_weight_that_a_region_shares_is_copied_or_kept(copies: bool) -> None:
    model, x = trained(Shared(**blocks())), values(*SHAPE)
    program, fused = fused_program(model, x, allow_copies=copies)
    assert_equal(run(model, (x,)), run(fused, (x,)))
    report = Report.of(program)
    assert {d.reason for d in report.skipped} == (set() if copies else {Reason.SHARED})
    assert (report.copied_bytes > 0) == copies


class Branches(Model):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.b(self.a(x)), lambda x: self.b(self.a(-x)), (x,))


@pytest.mark.skipif(torch.__version__ < "2.14", reason="torch 2.13 cannot export these branches")
@pytest.mark.parametrize("sign", [1, -1])
def test_norms_in_branches_fold(sign: int) -> None:
    model, x = trained(Branches(**blocks())), values(*SHAPE).abs() * sign
    program, fused = fused_program(model, x)
    report = Report.of(program)
    assert [d.kind for d in report.folded].count("batch_norm") == 4
    assert not report.skipped
    assert_equal(run(model, (x,)), run(fused, (x,)))


class Loop(Model):
    def forward(self, x: Tensor) -> Tensor:
        step = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, self.a(x)), (step, x))[1]


def test_a_norm_in_a_loop_is_told() -> None:
    model, x = trained(Loop(a=nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))), values(*SHAPE)
    program, fused = fused_program(model, x)
    assert_equal(run(model, (x,)), run(fused, (x,)))
    assert [d.reason for d in Report.of(program).skipped] == [Reason.OPAQUE]
