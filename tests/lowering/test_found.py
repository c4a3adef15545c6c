"""What was found out about the kernels, and what a lowered model makes of it: one test for each point."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse, lower, optimize
from fxfuse.lowering.cpu import onednn_obstacle

from ..helpers import Model
from .models import Net, fast, gap, image, made

FELL_BACK = "ran as the fused one does"


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 64, 64), (2, 3, 40, 56), (1, 3, 33, 35)])
def test_1_other_batches_and_sizes(shape: tuple[int, ...]) -> None:
    model = fast(Net(), image())
    assert gap(model(image(*shape)), model.fused(image(*shape))) < 2e-6
    assert model.fallbacks == 0


def test_2_copies_pickles_and_files() -> None:
    model, x = fast(Net(), image()), image()
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again, copy.copy(model)):
        other(x)
        assert torch.equal(other(x), expected)
        assert list(other.state_dict()) == list(model.fused.state_dict())
        assert Report.of(other).folded == Report.of(model).folded
    changed = copy.deepcopy(model)
    changed.fc.weight.data.zero_()
    assert torch.equal(model(x), expected)


def test_2_the_dense_weights_are_shared_with_the_fused_model() -> None:
    fused = made(Net())
    model = lower(fused)
    pairs = zip(fused.state_dict().items(), model.state_dict().items(), strict=True)
    assert all(n == m and a.data_ptr() == b.data_ptr() for (n, a), (m, b) in pairs)


def loaded(model: Any) -> None:
    model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})


def assigned(model: Any) -> None:
    model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()}, assign=True)


def through_data(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(2)


def replaced(model: Any) -> None:
    model.fc.weight = nn.Parameter(model.fc.weight.detach() * 3)


def in_place(model: Any) -> None:
    with torch.no_grad():
        model.get_submodule("blocks.0.conv1").weight[0, 0, 0, 0] += 5


def other_module(model: Any) -> None:
    model.fc = nn.Linear(16, 10)


@pytest.mark.parametrize("change", [loaded, assigned, through_data, replaced, in_place])
def test_2_changed_weights_are_packed_again(change: Any) -> None:
    model, x = fast(Net(), image()), image()
    before = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        change(model)
    for _ in range(2):
        assert gap(model(x), model.fused(x)) < 2e-6
    assert gap(model(x), before) > 1e-3


def test_2_a_replaced_module_is_seen() -> None:
    model, x = fast(Net(), image()), image()
    model(x)
    other_module(model)
    assert gap(model(x), model.fused(x)) < 2e-6


def test_3_nan() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Hardsigmoid())
    x = image()
    x[0, 0, 0, 0] = float("nan")
    exact = fast(layers, x, exact_nan=True)
    assert torch.equal(exact(x).isnan(), exact.fused(x).isnan())
    assert exact(x).isnan().any()
    quick = lower(exact.fused)
    quick(image())
    finite = ~exact.fused(x).isnan()
    assert gap(quick(x)[finite], exact.fused(x)[finite]) < 2e-6


def test_4_gradients_are_refused() -> None:
    model, x = fast(Net(), image()), image()
    wanted = x.clone().requires_grad_()
    with pytest.raises(FuseError, match="requires gradients"):
        model(wanted)
    with torch.no_grad():
        assert torch.equal(model(wanted), model(x))
    assert not model(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(model(x), model(image()))


def test_5_what_overlaps_is_not_written_into() -> None:
    class Overlapping(Model):
        def forward(self, x: Tensor) -> Any:
            y = self.a(x)
            z = self.b(y[:, :2]) + y[:, 2:]
            return z, y, self.b(x[:, :2]) + x[:, 2:]

    x = image(2, 4, 8, 8)
    model = fast(Overlapping(a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(2, 2, 3, padding=1)), x)
    before = x.clone()
    for one, other in zip(model(x), model.fused(x), strict=True):
        assert gap(one, other) < 2e-6
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_5_grouped_sums_in_every_dtype(dtype: torch.dtype) -> None:
    model, x = lower(made(Net(groups=2), torch.float32)), image(dtype=dtype)
    model = model.to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(2):
            result = model(x)
    assert gap(result, model.fused(x)) < (2e-6 if dtype == torch.float32 else 5e-2)
    assert bool(Report.of(model).left) is bool(onednn_obstacle(dtype))  # type: ignore[attr-defined]


def test_6_calls_that_run_the_fused_graph() -> None:
    model, x = fast(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), image()), image()
    fused = model.fused
    with pytest.warns(UserWarning, match=FELL_BACK), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), fused(x))
    before = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        assert torch.equal(model(x), fused(x))
    finally:
        torch.backends.mkldnn.set_flags(*before)
    assert model.fallbacks == 2
    model.train()
    assert torch.equal(model(x), fused(x))
    model.eval()
    assert model.fallbacks == 3
    for _ in range(2):
        assert gap(model(x[0]), fused(x[0])) < 2e-6
    assert model.fallbacks == 4  # the first call of a kind is none
    assert torch.func.vmap(model)(x[:, None]).shape == (2, 1, 4, 30, 30)
    assert model.fallbacks == 5
    with pytest.raises(RuntimeError, match="should be the same"):
        model(x.double())


def test_6_other_dtypes() -> None:
    model = lower(made(Net()))
    double = copy.deepcopy(model).double()
    x = image()
    with pytest.warns(UserWarning, match=FELL_BACK):
        assert torch.equal(double(x.double()), double.fused(x.double()))
    assert double.fallbacks == 1
    for _ in range(2):
        assert gap(model(x), model.fused(x)) < 2e-6
    assert next(model.fused.parameters()).dtype == torch.float32


def test_6_hooks_inside_run() -> None:
    model, x, seen = fast(Net(), image()), image(), []
    handle = model.get_submodule("blocks.0.conv1").register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(UserWarning, match=FELL_BACK):
        model(x)
    handle.remove()
    model(x)
    assert seen == [1]
    assert model.fallbacks == 1


@dataclass
class Out:
    first: Tensor
    rest: dict[str, Any]


def test_7_layouts() -> None:
    class Dense(Model):
        def forward(self, x: Tensor) -> Any:
            y = self.a(x)
            return Out(y, {"second": (y.permute(0, 2, 3, 1), torch.relu(y))})

    class Plain(Model):
        def forward(self, x: Tensor) -> Any:
            y = self.a(x)
            return {"a": (y, [y.permute(0, 2, 3, 1)]), "same": x}

    x = image()
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        model = lower(made(Plain(a=nn.Conv2d(3, 4, 3))))
        for _ in range(3):
            result, expected = model(given), model.fused(given)
            assert result["a"][0].stride() == expected["a"][0].stride()
            assert result["a"][1][0].stride() == expected["a"][1][0].stride()
            assert gap(result["a"][1][0], expected["a"][1][0]) < 2e-6
            assert result["same"] is given
    fused = fx_fuse(Dense(a=nn.Conv2d(3, 4, 3)).eval(), structure="graph")
    model = lower(fused)
    for _ in range(3):
        found = model(x)
        assert isinstance(found, Out)
        assert found.first.is_contiguous()
        assert gap(found.rest["second"][0], fused(x).rest["second"][0]) < 2e-6


def test_7_a_view_is_a_reshape() -> None:
    class Viewing(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z = y.view(y.shape[0], 2, -1)
            return z.view_as(z.view(y.shape[0], -1, 2)) * z.shape[2]

    model = fast(Viewing(a=nn.Conv2d(3, 4, 3)), image())
    assert gap(model(image(1, 3, 9, 9)), model.fused(image(1, 3, 9, 9))) < 2e-6


def test_7_lines_and_volumes() -> None:
    lines = nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3))
    x = image(2, 3, 17)
    model = fast(lines, x)
    assert gap(model(x), model.fused(x)) < 2e-6
    assert model(x).is_contiguous()
    volumes = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2, 2))
    y = image(2, 3, 6, 7, 8)
    model = fast(volumes, y)
    assert gap(model(y), model.fused(y)) < 2e-6
    assert model(y).stride() == model.fused(y).stride()


def test_8_export_says_what_to_do() -> None:
    model, x = fast(Net(), image()), image()
    for attempt in (
        lambda: torch.export.export(model, (x,)),
        lambda: torch.jit.script(model),
        lambda: torch.jit.trace(model, (x,)),
        lambda: torch.fx.symbolic_trace(model),
    ):
        with warnings.catch_warnings(), pytest.raises(Exception, match=r"lowered\.fused"):
            warnings.simplefilter("ignore")
            attempt()
    exported: Any = torch.export.export(model.fused, (x,)).module()
    assert gap(exported(x), model(x)) < 2e-6


def test_8_compiled_it_is_the_fused_model() -> None:
    model, x = fast(Net(), image()), image()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), model.fused(x))


def test_9_threads() -> None:
    model, inputs = lower(made(Net())), [image(seed=seed) for seed in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        first = list(pool.map(model, inputs * 2))
        second = list(pool.map(model, inputs * 2))
    expected = [model(x) for x in inputs] * 2
    assert all(torch.equal(one, other) for one, other in zip(second, expected, strict=True))
    assert all(gap(one, other) < 2e-6 for one, other in zip(first, expected, strict=True))


def test_9_what_has_hooks_is_left() -> None:
    fused = made(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    seen: list[int] = []
    fused.get_submodule("0").register_forward_hook(lambda *_: seen.append(1))
    model = lower(fused)
    assert [one.path for one in Report.of(model).left] == ["0"]  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match=FELL_BACK):
        model(image())
    assert seen == [1]


def test_optimize_is_both_steps() -> None:
    x = image()
    model = Net().eval()
    result = optimize(model, x)
    assert gap(result(x), model(x)) < 2e-6
    assert Report.of(result)


@pytest.mark.parametrize("wrong", ["a model", nn.Linear(2, 2), torch.export.export(nn.Linear(2, 2), (image(2, 2),))])
def test_what_cannot_be_lowered(wrong: Any) -> None:
    with pytest.raises(FuseError, match="othing was changed"):
        lower(wrong)
