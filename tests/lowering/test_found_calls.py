"""What was found out about the kernels, points 6 to 10: calls, layouts, export, threads, GPUs."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse, lower
from tests.support.helpers import Model

from .models import Net, fast, gap, image, made

FELL_BACK = "ran as the fused one does"


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(Exception, match=r"lowered\.fused"):
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


def test_10_cudnn_takes_what_it_is_given() -> None:
    schemas = {name: str(getattr(torch.ops.aten, name).default._schema) for name in CUDNN}
    assert {name: re.findall(r"(\w+)[,)]", schema.partition(" ->")[0] + ")") for name, schema in schemas.items()} == {
        "cudnn_convolution_relu": ["self", "weight", "bias", "stride", "padding", "dilation", "groups"],
        "cudnn_convolution_add_relu": [
            *("self", "weight", "z", "alpha", "bias", "stride", "padding", "dilation", "groups"),
        ],
    }


CUDNN = ("cudnn_convolution_relu", "cudnn_convolution_add_relu")

EPILOGUE = """
import torch
from torch import nn
from types import SimpleNamespace
from fxfuse.lowering.activations import ACTIVATIONS
from fxfuse.lowering.epilogue import KNOWN, finish

call = SimpleNamespace(get=lambda name, default: default)
known = {name: make(call) for name, make in ACTIVATIONS.items()}
assert set(known) - KNOWN == {"tanh"}
torch.manual_seed(0)
y, other = (torch.randn(2, 40, 7, 5).contiguous(memory_format=torch.channels_last) for _ in range(2))
y[0, 0, 0, 0] = float("nan")
bias = torch.randn(40)
for activation in (None, *(known[name] for name in sorted(KNOWN))):
    for b, o in ((None, None), (bias, None), (None, other), (bias, other)):
        wanted = y + (0 if b is None else b.view(-1, 1, 1)) + (0 if o is None else o)
        wanted = wanted if activation is None else activation.plain(wanted)
        found = finish(y.clone(memory_format=torch.preserve_format), b, o, activation)
        torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-5, atol=1e-5)
"""


def test_10_the_triton_kernel_in_its_interpreter() -> None:
    pytest.importorskip("triton")
    pytest.importorskip("numpy")
    settings = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", EPILOGUE]
    result = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_7_volumes_that_are_shuffled() -> None:
    class Shuffling(Model):
        def forward(self, x: Tensor) -> Tensor:
            return torch.pixel_shuffle(torch.relu(self.a(x)), 2)

    x = image(2, 3, 8, 4, 4)
    model = fast(Shuffling(a=nn.Conv3d(3, 4, 1)), x)
    assert gap(model(x), model.fused(x)) < 2e-6
