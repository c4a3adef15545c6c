"""``verify``: how far apart original and fused are, and which one is closer to the exact result."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, fx_fuse, verify
from tests.support.helpers import Model, trained, unchanged, values
from tests.support.samples import error_of


def conv_norm(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).to(dtype)


class Outputs(Model):
    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        y = self.bn(self.conv(x))
        return {"out": y * scale, "rest": [y.argmax(1), y > 0], "size": 3}


def outputs() -> Outputs:
    return trained(Outputs(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_errors_are_of_the_size_of_rounding(dtype: torch.dtype) -> None:
    model = conv_norm(dtype)
    fused = fx_fuse(model)
    with unchanged(model), unchanged(fused):
        result = verify(model, fused, values(2, 3, 6, 6, dtype=dtype))
    (comparison,) = result.comparisons
    assert comparison.output == "output"
    assert result.absolute == comparison.absolute
    assert result.relative == comparison.relative <= 8 * torch.finfo(dtype).eps
    assert max(comparison.original, comparison.fused) <= 8 * torch.finfo(dtype).eps


def test_a_float64_model_is_its_own_reference() -> None:
    model = conv_norm(torch.float64)
    (comparison,) = verify(model, fx_fuse(model), values(2, 3, 6, 6)).comparisons
    assert comparison.original == 0
    assert comparison.fused == comparison.relative


def test_every_output_has_a_line_of_its_own() -> None:
    model = outputs()
    result = verify(model, fx_fuse(model), values(2, 3, 6, 6), tolerance=1e-12)
    assert [c.output for c in result.comparisons] == ["['out']", "['rest'][0]", "['rest'][1]"]
    text = str(result).splitlines()
    assert len(text) == 2 + 3
    assert all(word in text[0] for word in ("output", "relative", "float64"))
    assert "['rest'][1]" in text[-1]


@pytest.mark.parametrize("inputs", [values(2, 3, 6, 6), (values(2, 3, 6, 6),), {"x": values(2, 3, 6, 6), "scale": 2.0}])
def test_inputs_are_a_tensor_positional_arguments_or_keywords(inputs: Any) -> None:
    model = outputs()
    assert verify(model, fx_fuse(model, inputs, structure="module"), inputs).relative <= 1e-12


def test_any_callable_can_be_compared() -> None:
    model = conv_norm(torch.float64)
    assert verify(model, lambda x: model(x) * 1.5, values(2, 3, 6, 6), tolerance=1).relative == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("original", "fused", "verdict"),
    [
        (3.0e-7, 3.1e-7, "equal up to rounding"),
        (3.1e-7, 3.0e-7, "equal up to rounding"),
        (0.0, 0.0, "equal up to rounding"),
        (0.0, 4e-7, "equal up to rounding"),
        (4e-5, 1e-5, "closer"),
        (1e-5, 4e-5, "further"),
        (1e-5, 1.08, "DIFFERS"),
        (0.0, math.nan, "DIFFERS"),
    ],
)
def test_the_table_says_in_a_word_what_the_fused_model_is(original: float, fused: float, verdict: str) -> None:
    """The errors of a model that gives ones, which is that of float32, against its float64 copy."""

    class Ones(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x) + (0 if x.dtype == torch.float64 else original)

    x = torch.ones(4)
    result = verify(Ones(), lambda x: x + fused, x, raises=False)
    assert result.comparisons[0].original == pytest.approx(original, abs=1.2e-7)
    assert str(result).endswith(f"  {verdict}")
    assert result.ok is (verdict != "DIFFERS")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_tolerance_is_that_of_the_dtype(dtype: torch.dtype) -> None:
    model, x = conv_norm(dtype), values(2, 3, 6, 6, dtype=dtype)
    (comparison,) = verify(model, fx_fuse(model), x).comparisons
    assert comparison.verdict == "equal up to rounding"
    with pytest.raises(FuseError, match=f"over the tolerance {comparison.tolerance:.2e}"):
        verify(model, lambda x: model(x) * (1 + 2 * comparison.tolerance), x)
    assert not verify(model, lambda x: model(x) * (1 + 2 * comparison.tolerance), x, raises=False).ok
    assert verify(model, lambda x: model(x) * (1 + 2 * comparison.tolerance), x, tolerance=1).ok


def test_a_fault_of_our_own_is_not_blamed_on_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxfuse.modules.example_inputs.State", None)
    model, x = conv_norm(), torch.randn(2, 3, 6, 6)
    for fails in (lambda: verify(model, model, x), lambda: fx_fuse(model, x)):
        sentence = error_of(fails)
        assert "TypeError: 'NoneType' object is not callable" in sentence
        assert "This is a fault of fxfuse" in sentence
        assert "raises on the example inputs" not in sentence


def test_the_random_generator_and_the_inputs_are_left_alone() -> None:
    model = conv_norm(torch.float64)
    x = values(2, 3, 6, 6)
    before, state = x.clone(), torch.get_rng_state()
    verify(model, lambda y: model(y.clone()) + 0 * y.add_(1).sum(), x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


# -- errors


def test_over_the_tolerance_is_an_error_with_the_table() -> None:
    model = conv_norm(torch.float64)
    x = values(2, 3, 6, 6)
    assert verify(model, lambda x: model(x) * 1.01, x, tolerance=0.02).relative == pytest.approx(0.01)
    sentence = error_of(lambda: verify(model, lambda x: model(x) * 1.01, x, tolerance=1e-3))
    assert "1.00e-02" in sentence
    assert "1.00e-03" in sentence
    assert "max |difference|" in sentence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_over_every_tolerance(bad: float, which: int) -> None:
    class Two(Model):
        def forward(self, x: Tensor) -> list[Tensor]:
            y = self.conv(x)
            return [y, y * 2]

    model = trained(Two(conv=nn.Conv2d(3, 4, 3)))

    def broken(x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = model(x)
        outputs[which] = outputs[which] * bad
        return outputs

    with pytest.raises(FuseError, match="tolerance"):
        verify(model, broken, values(2, 3, 6, 6), tolerance=1e6)


def test_nan_in_both_is_no_difference() -> None:
    class Undefined(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(x)).clamp(max=-1e9) * torch.inf * 0

    model = trained(Undefined(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    assert verify(model, fx_fuse(model), values(2, 3, 6, 6), tolerance=1e-6).relative == 0


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda y: (y, y), id="structure"),
        pytest.param(lambda y: y[:1], id="shape"),
        pytest.param(lambda y: y.double(), id="dtype"),
        pytest.param(lambda _y: None, id="nothing"),
        pytest.param(lambda y: {"out": y}, id="a dict"),
    ],
)
def test_another_structure_is_an_error(other: Any) -> None:
    model = conv_norm()
    sentence = error_of(lambda: verify(model, lambda x: other(model(x)), values(2, 3, 6, 6, dtype=torch.float32)))
    assert "returns" in sentence
    assert "nothing was changed" in sentence


def test_an_original_that_raises_is_an_error() -> None:
    model = conv_norm()
    sentence = error_of(lambda: verify(model, fx_fuse(model), torch.randn(2, 5, 6, 6)))
    assert "Sequential raises on the example inputs by itself" in sentence


@pytest.mark.parametrize("as_module", [True, False])
def test_a_fused_model_that_raises_is_an_error(as_module: bool) -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no {x.ndim}")

    fused = Raises() if as_module else Raises().forward
    sentence = error_of(lambda: verify(conv_norm(), fused, torch.randn(2, 3, 6, 6)))
    assert "no 4" in sentence
    assert "fused" in sentence


def test_an_original_that_is_no_module_is_an_error() -> None:
    sentence = error_of(lambda: verify("model", nn.Identity(), torch.randn(2)))  # type: ignore[arg-type] # the point
    assert "str" in sentence
    assert "torch.nn.Module" in sentence


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), "1e-3"])
def test_a_tolerance_that_is_none(tolerance: Any) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(FuseError, match="is no number from 0 on; leave it out"):
        verify(model, model, values(1, 2).float(), tolerance=tolerance)


def test_a_fused_model_that_is_none() -> None:
    with pytest.raises(FuseError, match="verify takes the fused model, and got Tensor"):
        verify(nn.Linear(2, 2), values(2), values(1, 2))  # type: ignore[arg-type] # the point
