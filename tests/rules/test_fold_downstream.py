"""Hazards 20, 23: ``fold_downstream`` puts a norm, or the weight and bias of one, into all who read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, unchanged, values
from tests.support.samples import assert_refused, graph_text, lines

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 4, 6, 6)


def before(layer: nn.Module, norm: nn.Module | None = None) -> nn.Sequential:
    """A model in which a norm has nothing to fold into but ``layer``, which follows it."""
    return trained(nn.Sequential(nn.ReLU(), norm or nn.BatchNorm2d(4), layer))


def test_modules_before_and_after() -> None:
    fused = assert_fuses(before(nn.Conv2d(4, 5, 1)), values(*IMAGE), folded=["1"])
    assert graph_text(fused) == lines("""
        input_1 = <input>
        _0 = self.0(input_1)
        _2 = self.2(_0)
        return _2
    """)
    assert sorted(fused.state_dict()) == ["2.bias", "2.weight"]


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "dilation": 2},
    {"groups": 2},
    {"groups": 4, "bias": False},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate"},
    {"padding": "valid"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions_that_read_no_zeros(structure: Structure, options: dict[str, Any]) -> None:
    assert_fuses(before(nn.Conv2d(4, 4, 3, **options)), values(*IMAGE), folded=["1"], structure=structure)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(4, 5, 1, padding=(0, 1))], ids=str)
@pytest.mark.parametrize("prepare", [trained, nn.Module.eval])
def test_a_shift_does_not_reach_padded_zeros(layer: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> None:
    decision = assert_refused(prepare(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), layer)), Reason.NOT_LINEAR)
    assert decision.downstream is Reason.ZERO_PADDING
    assert "2 pads its input with zeros" in decision.detail


@pytest.mark.parametrize("padding", ["same", 2])
def test_a_scale_alone_passes_padded_zeros(padding: Any) -> None:
    assert_fuses(before(nn.Conv2d(4, 5, 3, padding=padding), scale_alone()), values(*IMAGE), folded=["1"])


@pytest.mark.parametrize(("options", "folded"), [({"padding": 1}, []), ({"padding": (0, 1)}, []), ({}, ["norm"])])
def test_a_function_that_pads_takes_no_shift(options: dict[str, Any], folded: list[str], structure: Structure) -> None:
    class Functional(Model):
        def forward(self, x: Tensor) -> Tensor:
            return torch.conv2d(self.norm(x), self.weight, **options)

    model = trained(Functional(norm=nn.BatchNorm2d(4), weight=nn.Parameter(values(5, 4, 3, 3))))
    left = {} if folded else {"norm": Reason.NOT_LINEAR}
    assert_fuses(model, values(*IMAGE), folded=folded, left=left, structure=structure)


@pytest.mark.parametrize("piece", [lambda y: y[:, 2:], lambda y: y.narrow(1, 1, 2), lambda y: y.chunk(2, 1)[1]])
def test_an_affine_of_one_size_passes_a_piece(piece: Callable[[Tensor], Tensor]) -> None:
    class Piece(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(piece(x * self.scale + self.shift))

    model = trained(Piece(conv=nn.Conv2d(2, 3, 3), scale=values(1), shift=values(1, 1, 1)))
    program = fx_fuse(torch.export.export(model, (values(*IMAGE),)))  # which knows the dtypes
    assert_same(model, program.module(), values(*IMAGE))
    assert not {"mul", "add"} & {node.name for node in program.graph.nodes}


def scale_alone() -> nn.Module:
    """A norm of which only a weight is left, and no bias that values could make zero."""
    norm = shuffled(nn.InstanceNorm2d(4, affine=True))
    norm.register_parameter("bias", None)
    return norm


def test_transposed_convolutions_take_no_shift() -> None:
    decision = assert_refused(before(nn.ConvTranspose2d(4, 6, 3, groups=2)), Reason.NOT_LINEAR)
    assert decision.downstream is Reason.ZERO_PADDING
    assert_fuses(before(nn.ConvTranspose2d(4, 6, 3, groups=2), scale_alone()), values(*IMAGE), folded=["1"])


class Attention(Model):
    """A layer norm with three readers, as before attention."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.q(y) * self.k(y) + self.v(y)


class Residual(Attention):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.q(y) * y


def attention(norm: nn.Module, kind: type[Model] = Attention) -> nn.Module:
    return trained(kind(norm=shuffled(norm), q=nn.Linear(4, 4), k=nn.Linear(4, 4, bias=False), v=nn.Linear(4, 4)))


def shuffled(norm: nn.Module) -> nn.Module:
    """A norm of which weight and bias are not those of a fresh one."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 0.5)
    return norm


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(4), nn.LayerNorm(4, bias=False), nn.RMSNorm(4), nn.BatchNorm1d(4)],
    ids=lambda n: type(n).__name__,
)
def test_all_readers_take_it_over(structure: Structure, norm: nn.Module) -> None:
    model = attention(norm)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(3, 4))
    (decision,) = Report.of(fused).folded
    assert (decision.path, sorted(decision.into)) == ("norm", ["k", "q", "v"])
    assert not [name for name in fused.state_dict() if name.startswith("norm.")]


def test_the_normalisation_stays() -> None:
    fused = fx_fuse(attention(nn.LayerNorm(4)))
    norm = fused.get_submodule("norm")
    assert isinstance(norm, nn.LayerNorm)
    assert list(norm.parameters()) == []
    assert not norm.elementwise_affine
    assert "the normalisation stays" in Report.of(fused).folded[0].detail
    assert not Report.of(fx_fuse(fused))


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.BatchNorm1d(4)], ids=lambda n: type(n).__name__)
def test_all_readers_or_none(structure: Structure, norm: nn.Module) -> None:
    model = attention(norm, Residual)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(3, 4))
    assert not Report.of(fused)


class Grouped(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = F.group_norm(x, 2, self.weight, self.bias)
        return F.conv2d(F.layer_norm(y, (6,), self.scale), self.kernel)


def test_functions(structure: Structure) -> None:
    names = {"weight": (4,), "bias": (4,), "scale": (6,), "kernel": (5, 4, 1, 1)}
    model = Grouped(**{name: nn.Parameter(values(*shape)) for name, shape in names.items()}).eval()
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    # One is along the width, which no weight has; it reads the other.
    found = {(d.kind, d.reason) for d in Report.of(fused).skipped}
    assert found == {("layer_norm", Reason.NOT_PER_CHANNEL), ("group_norm", Reason.READ_BY)}


def test_axis_one_must_be_proven_where_the_normalisation_stays(structure: Structure) -> None:
    model = trained(nn.Sequential(shuffled(nn.GroupNorm(2, 4)), nn.Conv2d(4, 5, 1)))
    assert_refused(model, Reason.UNKNOWN_SHAPE)
    model = trained(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), shuffled(nn.GroupNorm(2, 4)), nn.Conv2d(4, 5, 1)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    assert [d.path for d in Report.of(fused).folded] == ["2"]


class WritesBetween(Model):
    """What the norm read is changed before its reader runs."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        z = self.norm(y)
        y.add_(1)
        return self.conv(z) + y.sum()


class WritesAlias(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        z = self.norm(y)
        y.flatten(1).mul_(2)
        return self.conv(z) + y.sum()


class WritesLater(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        z = self.conv(self.norm(y))
        y.add_(1)
        return z + y.sum()


@pytest.mark.parametrize(("kind", "count"), [(WritesBetween, 0), (WritesAlias, 0), (WritesLater, 1)])
def test_a_value_that_is_written_into(structure: Structure, kind: type[Model], count: int) -> None:
    model = trained(kind(norm=nn.BatchNorm2d(4), conv=nn.Conv2d(4, 5, 1)))
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    assert len(Report.of(fused).folded) == count
    assert count or {d.downstream for d in Report.of(fused).skipped} == {Reason.MUTATED}


class Returned(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x.relu())
        return self.conv(y), y


class UsedAsWeight(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.relu())
        return F.linear(y.flatten(0, 2), y[0, 0])


@pytest.mark.parametrize("kind", [Returned, UsedAsWeight])
def test_other_readers(structure: Structure, kind: type[Model]) -> None:
    model = trained(kind(norm=nn.BatchNorm2d(4), conv=nn.Conv2d(4, 5, 1)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    assert not Report.of(fused)
