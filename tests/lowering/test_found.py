"""What was found out about the kernels, points 1 to 5: weights, NaN, gradients, memory that overlaps."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, lower, optimize
from fxfuse.lowering.cpu import onednn_obstacle
from tests.support.helpers import Model

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


def test_a_model_that_counts_its_calls_is_packed_once() -> None:
    class Counting(Model):
        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return self.a(x) * self.count

    model = fast(Counting(a=nn.Conv2d(3, 4, 3), count=torch.zeros(1)), image())
    before = model.get_buffer("count").item()
    model(image())
    built = model._runner._built
    assert gap(model(image(seed=1)), model.fused(image(seed=1)) * (before + 2) / (before + 3)) < 2e-6
    assert model._runner._built is built
    model.count = torch.zeros(1)
    assert model(image()).abs().max() < 10
    assert model._runner._built is not built
