"""What only a GPU shows: memory on two devices, its own autocast, recorded graphs, and a benchmark that waits."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fuse_graph, fx_fuse, verify
from fxfuse.cli import bench
from fxfuse.cli.settings import Bench
from fxfuse.frontends.backend import fxfuse
from tests.support.graph_forms import made
from tests.support.helpers import Model, assert_same, folds, reasons, trained, values

if TYPE_CHECKING:
    from tests.support.helpers import Structure

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


def small() -> nn.Module:
    """Folds upstream, downstream and into a linear layer, and merges two branches."""
    return trained(Small())


class Small(Model):
    def __init__(self) -> None:
        super().__init__(
            stem=nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            before=nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)),
            a=nn.Conv2d(8, 8, 3, padding=1),
            b=nn.Sequential(nn.ConvTranspose2d(8, 8, 1, groups=2), nn.BatchNorm2d(8)),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.BatchNorm1d(5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.stem(x))
        return self.head((self.a(x) * 2 + self.b(x)).relu())


class Moves(Model):
    """Goes to another device in the middle."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).cpu())


class Autocast(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            y = self.conv(x)
        return self.norm(y.float())


class Draws(Model):
    """Adds noise that is drawn on the GPU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + torch.rand(4, 1, 1, dtype=x.dtype, device=x.device)


def on_gpu(*shape: int) -> Tensor:
    return values(*shape).cuda()


def test_the_same_is_folded_as_on_the_cpu_and_stays_on_the_gpu(structure: Structure) -> None:
    model = small()
    here = fx_fuse(model, structure=structure)
    there = fx_fuse(copy.deepcopy(model).cuda(), structure=structure)
    assert Report.of(here).decisions == Report.of(there).decisions
    assert {t.device.type for t in there.state_dict().values()} == {"cuda"}
    x = values(4, 3, 9, 9)
    torch.testing.assert_close(there(x.cuda()).cpu(), here(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fold_rounds_as_on_the_cpu(dtype: torch.dtype) -> None:
    model = small().to(dtype)
    here, there = fx_fuse(model).state_dict(), fx_fuse(copy.deepcopy(model).cuda()).state_dict()
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(there[name].cpu(), tensor, rtol=torch.finfo(dtype).eps, atol=1e-8)


def test_the_argument_is_untouched_and_verified() -> None:
    model = small().cuda()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = fx_fuse(model)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert verify(model, fused, on_gpu(2, 3, 9, 9)).relative < 1e-12


def test_constants_on_the_other_device_stay() -> None:
    model = trained(Moves(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    model.conv.cuda()
    fused = fx_fuse(model)
    x = on_gpu(2, 3, 5, 5)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-12, atol=1e-12)
    assert fused(x).device.type == "cpu"
    assert reasons(fused) == {("norm", Reason.NOT_LINEAR)}


def test_autocast_of_the_gpu_is_no_plain_convolution() -> None:
    model = trained(Autocast(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))).float().cuda()
    fused = fx_fuse(model)
    x = on_gpu(2, 3, 5, 5).float()
    assert torch.equal(fused(x), model(x))
    assert not folds(fused)


def test_under_autocast_the_fused_model_is_as_near() -> None:
    model = small().float().cuda()
    x = on_gpu(2, 3, 9, 9).float()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        with torch.autocast("cuda", enabled=False):
            exact = copy.deepcopy(model).double()(x.double())
        gaps = [float((m(x).double() - exact).abs().max()) for m in (model, fx_fuse(model))]
    assert gaps[1] <= 2 * gaps[0]


@pytest.mark.parametrize("example", [None, (2, 3, 5, 5)])
def test_chance_of_the_gpu_stays_chance(example: tuple[int, ...] | None) -> None:
    model = trained(Draws(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))).cuda()
    before = torch.cuda.get_rng_state()
    fused = fx_fuse(model, on_gpu(*example) if example else None)
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert folds(fused) == ["norm"]
    x, drawn = on_gpu(2, 3, 5, 5), []
    for either in (model, fused, fused):
        drawn.append(either(x))
        torch.cuda.set_rng_state(before) if either is model else None
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-12, atol=1e-12)
    assert not torch.equal(drawn[1], drawn[2])


def test_a_graph_down_to_aten() -> None:
    model, x = small().cuda(), on_gpu(2, 3, 9, 9)
    graph_module, state = made(model, (x,))
    names = [node.name for node in graph_module.graph.nodes if node.op == "placeholder"]
    assert torch.ops.aten.cudnn_batch_norm.default in {node.target for node in graph_module.graph.nodes}
    report = fuse_graph(graph_module, dict(zip(names, state.values(), strict=False)))
    assert len(report.folded) >= 4
    torch.testing.assert_close(graph_module(state, x), model(x), rtol=1e-12, atol=1e-12)


def test_channels_last_stays() -> None:
    model = small().cuda().to(memory_format=torch.channels_last)
    fused = fx_fuse(model)
    weight = fused.state_dict()["stem.0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_graph_of_the_gpu_records_the_fused_model() -> None:
    fused = fx_fuse(small().cuda())
    x = on_gpu(2, 3, 9, 9)
    with torch.no_grad():
        expected = fused(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded = fused(x)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(recorded, expected, rtol=1e-12, atol=1e-12)


def test_an_exported_program() -> None:
    model = small().cuda()
    x = on_gpu(2, 3, 9, 9)
    fused = fx_fuse(torch.export.export(model, (x,)))
    assert len(Report.of(fused).folded) >= 4
    torch.testing.assert_close(fused.module()(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler itself
def test_the_backend_compiles_for_the_gpu() -> None:
    pytest.importorskip("triton")
    model = small().cuda()
    x = on_gpu(2, 3, 9, 9)
    with torch.no_grad():
        given = torch.compile(model, backend=fxfuse)(x)
    torch.testing.assert_close(given, model(x), rtol=1e-10, atol=1e-10)


def test_the_pass_takes_a_trace_of_the_gpu_as_an_example(structure: Structure) -> None:
    model = small().cuda()
    x = on_gpu(2, 3, 9, 9)
    assert_same(model, fx_fuse(model, (x,), structure=structure), x)


def test_the_benchmark_waits_for_the_gpu() -> None:
    settings: Any = {"batches": (2,), "repeats": 2, "input_size": (3, 9, 9), "device": "cuda"}
    (row,) = bench.measure(Bench((f"{__name__}:small",), **settings))
    assert row.norms_after == 0
    assert row.error < 1e-5
    assert min(row.before_ms, row.after_ms) > 0
