"""Models of which torch.export writes every overload of the carriers and norms in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.operators.sample import BATCH, IMAGE, LINE, VOLUME
from tests.support.samples import parameter, randn

Call = Callable[[Tensor], Tensor]
aten = torch.ops.aten
LAYERS: dict[int, Any] = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SHAPES = {0: BATCH, 1: LINE, 2: IMAGE, 3: VOLUME}


class Behind(nn.Module):
    """Calls, each behind a layer of its own, and a positive scale for what each gives."""

    def __init__(self, dims: int, calls: list[tuple[Call, tuple[int, ...]]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([LAYERS[dims](8, 8, *([1] if dims else [])) for _ in calls])
        self.gains = nn.ParameterList([nn.Parameter(randn(*shape).abs() + 0.1) for _, shape in calls])
        self.calls = [call for call, _ in calls]

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = zip(self.layers, self.calls, self.gains, strict=True)
        # A view of repeated elements is no result that a fold may leave.
        return [torch.sin(call(layer(x)) * gain) for layer, call, gain in rows]


class Joined(nn.Module):
    """Calls that put the results of two layers together, and a scale for what each gives."""

    def __init__(self, calls: list[tuple[Callable[[list[Tensor]], Tensor], tuple[int, ...]]]) -> None:
        super().__init__()
        self.one = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in calls])
        self.other = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in calls])
        self.gains = nn.ParameterList([parameter(*shape) for _, shape in calls])
        self.calls = [call for call, _ in calls]

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = zip(self.one, self.other, self.calls, self.gains, strict=True)
        return [call([one(x), other(x.sin())]) * gain for one, other, call, gain in rows]


class Before(nn.Module):
    """Norms, each with a weight and bias, and a linear layer behind it."""

    def __init__(self, norms: list[Callable[[Tensor, Tensor, Tensor], Tensor]]) -> None:
        super().__init__()
        self.norms = norms
        self.weight = parameter(8)
        self.bias = parameter(8, seed=1)
        self.last = nn.ModuleList([nn.Linear(8, 5) for _ in norms])

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = zip(self.norms, self.last, strict=True)
        return [last(norm(x, self.weight, self.bias)) for norm, last in rows]


ELEMENTWISE: list[Call] = [
    F.relu,
    lambda x: F.leaky_relu(x, 0.3),
    lambda x: F.relu(x, inplace=True),
    lambda x: F.leaky_relu_(x, 0.3),
    nn.PReLU().double(),
    lambda x: aten._prelu_kernel.default(x, torch.tensor([0.3], dtype=torch.float64)),
    torch.clone,
    aten.alias.default,
    aten.contiguous.default,
    lambda x: aten.to.other(x, torch.zeros(2, dtype=torch.float64)),
    lambda x: aten._to_copy.default(x, dtype=torch.float64),
    lambda x: x.type_as(torch.zeros(2, dtype=torch.float64)),
    lambda x: x.roll(1, 0),
]
LINES: list[Call] = [
    lambda x: F.interpolate(x, 9),
    lambda x: aten.upsample_nearest1d.default(x, [9]),
    lambda x: F.interpolate(x, 9, mode="nearest-exact"),
    lambda x: aten._upsample_nearest_exact1d.default(x, [9]),
    lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"),
    lambda x: aten.upsample_linear1d.default(x, [9], False),
    lambda x: aten.reflection_pad1d.default(x, [1, 2]),
    lambda x: aten.replication_pad1d.default(x, [1, 2]),
    lambda x: F.max_pool1d(x, 2),
    lambda x: F.avg_pool1d(x, 3, ceil_mode=True),
    lambda x: F.adaptive_avg_pool1d(x, 4),
]
IMAGES: list[Call] = [
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: aten.upsample_nearest2d.default(x, [9, 3]),
    lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    lambda x: aten._upsample_nearest_exact2d.default(x, [9, 3]),
    lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    lambda x: aten.upsample_bilinear2d.default(x, [9, 3], True),
    lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    lambda x: aten.upsample_bicubic2d.default(x, [9, 3], False),
    lambda x: F.interpolate(x, (3, 2), mode="bilinear", antialias=True),
    lambda x: aten._upsample_bilinear2d_aa.default(x, [3, 2], False),
    lambda x: F.interpolate(x, (3, 2), mode="bicubic", antialias=True),
    lambda x: aten._upsample_bicubic2d_aa.default(x, [3, 2], False),
    lambda x: F.pad(x, (1, 0, 0, 2), "reflect"),
    lambda x: F.pad(x, (1, 0)),
    lambda x: torch.constant_pad_nd(x, [0, 2]),
    lambda x: aten.reflection_pad2d.default(x, [1, 2, 0, 1]),
    lambda x: aten.replication_pad2d.default(x, [1, 2, 0, 1]),
    lambda x: F.max_pool2d(x, 2),
    lambda x: aten.max_pool2d_with_indices.default(x, [2, 2])[0],
    lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    lambda x: F.avg_pool2d(x, 3, padding=1, count_include_pad=False),
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: aten._adaptive_avg_pool2d.default(x, [3, 2]),
    lambda x: x.mean((-1, -2), keepdim=True),
    lambda x: x.transpose(-1, -2),
    lambda x: x.repeat(1, 1, 2, 1),
    lambda x: torch.channel_shuffle(x, 4),
]
VOLUMES: list[Call] = [
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: aten.upsample_nearest3d.default(x, [9, 3, 2]),
    lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    lambda x: aten._upsample_nearest_exact3d.default(x, [9, 3, 2]),
    lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"),
    lambda x: aten.upsample_trilinear3d.default(x, [9, 3, 2], False),
    lambda x: aten.reflection_pad3d.default(x, [1, 2, 0, 1, 1, 1]),
    lambda x: aten.replication_pad3d.default(x, [1, 2, 0, 1, 1, 1]),
    lambda x: F.max_pool3d(x, 2),
    lambda x: aten.max_pool3d_with_indices.default(x, [2, 2, 2])[0],
    lambda x: F.adaptive_max_pool3d(x, (3, 2, 1)),
    lambda x: F.avg_pool3d(x, 2),
    lambda x: F.adaptive_avg_pool3d(x, 2),
    lambda x: aten._adaptive_avg_pool3d.default(x, [3, 2, 1]),
]
ELSEWHERE: list[tuple[Call, tuple[int, ...]]] = [
    (lambda x: x.mean((2, 3)), (8,)),
    (lambda x: x.permute(0, 2, 3, 1), (8,)),
    (lambda x: x.movedim(1, -1), (8,)),
    (lambda x: x.movedim((0, 1), (2, 3)), (8,)),
    (lambda x: x.moveaxis(1, -1), (8,)),
    (lambda x: x.moveaxis((0, 1), (2, 3)), (8,)),
    (lambda x: x.swapaxes(1, 3), (8,)),
    (lambda x: x.view_as(torch.ones(2, 8, 24)), (8, 1)),
    (lambda x: x.reshape_as(torch.ones(2, 8, 24)), (8, 1)),
    (lambda x: x.unsqueeze(-1), (8, 1, 1, 1)),
    (lambda x: x.unsqueeze(1).squeeze(1), (8, 1, 1)),
    (lambda x: x.unsqueeze(1).squeeze((1,)), (8, 1, 1)),
    (lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1), (8, 1, 1, 1)),
    (lambda x: x[:, 2:5], (3, 1, 1)),
    (lambda x: x.narrow(1, 3, 4), (4, 1, 1)),
    (lambda x: x[:, -1], ()),
    (lambda x: x.flatten(2), (8, 1)),
    (lambda x: x.view(2, 8, 24), (8, 1)),
    (lambda x: x.reshape(2, -1, 24), (8, 1)),
    (lambda x: aten._unsafe_view.default(x, [2, 8, 24]), (8, 1)),
    (lambda x: x.unflatten(1, (2, 4)), (2, 4, 1, 1)),
    (lambda x: x.split(3, 1)[2], (2, 1, 1)),
    (lambda x: x.split([1, 5, 2], 1)[1], (5, 1, 1)),
    (lambda x: aten.split.sizes(x, [1, 5, 2], 1)[1], (5, 1, 1)),
    (lambda x: x.chunk(3, 1)[-1], (2, 1, 1)),
    (lambda x: x.unbind(1)[4], ()),
    (lambda x: F.pixel_shuffle(x, 2), (2, 1, 1)),
    (lambda x: F.pixel_unshuffle(x, 2), ()),
]
NORMS: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
    lambda x, w, b: F.layer_norm(x, (8,), w, b),
    lambda x, w, b: aten.native_layer_norm.default(x, [8], w, b, 1e-5)[0],
    lambda x, w, b: F.rms_norm(x, (8,), w),  # noqa: ARG005 - all are called alike
    lambda x, w, b: F.group_norm(x, 2, w, b),
    lambda x, w, b: aten.native_group_norm.default(x, w, b, 3, 8, 1, 2, 1e-5)[0],
    lambda x, w, b: F.instance_norm(x.unsqueeze(-1).repeat(1, 1, 2), weight=w, bias=b).mean(-1),
]
JOINS: list[tuple[Callable[[list[Tensor]], Tensor], tuple[int, ...]]] = [
    (lambda xs: torch.cat(xs, 1), (16, 1, 1)),
    (lambda xs: torch.concat(xs, 1), (16, 1, 1)),
    (lambda xs: torch.concatenate(xs, 1), (16, 1, 1)),
    (lambda xs: torch.stack(xs, 1), (2, 8, 1, 1)),
]
SUMS: list[tuple[Callable[[list[Tensor]], Tensor], tuple[int, ...]]] = [
    (lambda xs: torch.stack(xs).sum(0), (8, 1, 1)),
    (lambda xs: xs[0] + xs[1], (8, 1, 1)),
    (lambda xs: torch.sub(*xs, alpha=2), (8, 1, 1)),
    (lambda xs: torch.rsub(*xs, alpha=3), (8, 1, 1)),
    (lambda xs: xs[0].add_(xs[1]), (8, 1, 1)),
    (lambda xs: xs[0].sub_(xs[1], alpha=0.5), (8, 1, 1)),
]
# torch.export adds a check of the dtype, which reads no values.
CASTS: list[Call] = [
    lambda x: x.to(torch.float64),
    lambda x: x.to("cpu", torch.float64),
    lambda x: x.to("cpu"),
]


def models() -> list[tuple[nn.Module, Tensor, int]]:
    """Models, an input for each, and how many operations of each fold."""
    along_channels = ((0, ELEMENTWISE), (1, LINES), (2, IMAGES), (3, VOLUMES))
    groups = [(dims, [(call, (8, *[1] * dims)) for call in calls]) for dims, calls in along_channels]
    found: list[tuple[nn.Module, int, int]] = [
        *((Behind(dims, calls), dims, len(calls)) for dims, calls in (*groups, (2, ELSEWHERE))),
        (Joined(JOINS), 2, len(JOINS)),
        (Joined(SUMS), 2, len(SUMS)),
        (Before(NORMS), 0, len(NORMS)),
        (Behind(2, [(call, (8, 1, 1)) for call in CASTS]), 2, len(CASTS)),
    ]
    return [(model.double().eval(), randn(*SHAPES[dims]), count) for model, dims, count in found]
