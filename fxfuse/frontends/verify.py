"""Original and fused side by side: how far apart, and which of the two is closer to the exact result."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse.modules.comparison import TOLERANCE, alike, gap, largest, leaves
from fxfuse.modules.example_inputs import Inputs, reference, untouched
from fxfuse.pipeline.entry import as_fuse_errors
from fxfuse.report.errors import FuseError, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Comparison:
    """The errors of one output tensor; relative ones are divided by the largest exact value.

    Attributes:
        output: where the tensor stands in the output, such as ``['out']`` or ``[0]``.
        absolute: largest absolute difference of fused and original.
        relative: the same, relative.
        original: largest relative error of the original against a float64 copy of it.
        fused: largest relative error of the fused model against the same copy.
        rounding: the relative error that rounding makes at least, 4 times the epsilon of the dtype.
        tolerance: the largest ``relative`` that is allowed.
    """

    output: str
    absolute: float
    relative: float
    original: float
    fused: float
    rounding: float
    tolerance: float

    @property
    def verdict(self) -> str:
        """What the fused model is: ``"DIFFERS"`` over the tolerance, else mostly ``"equal up to rounding"``.

        It is ``"closer"`` to the exact result with less than half the error of the original and ``"further"`` with more
        than twice, both beyond rounding.
        """
        if not self.relative <= self.tolerance:
            return "DIFFERS"
        if self.original > 2 * self.fused + self.rounding:
            return "closer"
        return "further" if self.fused > 2 * self.original + self.rounding else "equal up to rounding"


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found; prints as a table, with a line for each output tensor.

    Example:
        >>> import torch
        >>> from fxfuse import verify
        >>> layer = torch.nn.Linear(4, 2)
        >>> found = verify(layer, layer, torch.ones(1, 4))
        >>> found.absolute, [comparison.output for comparison in found.comparisons]
        (0.0, ['output'])

    Attributes:
        comparisons: the errors of each output tensor, in the order of the outputs.
    """

    comparisons: tuple[Comparison, ...]

    @property
    def absolute(self) -> float:
        """The largest absolute difference of any output."""
        return _largest(c.absolute for c in self.comparisons)

    @property
    def relative(self) -> float:
        """The largest relative difference of any output."""
        return _largest(c.relative for c in self.comparisons)

    @property
    def ok(self) -> bool:
        """Whether no output differs by more than is allowed."""
        return not any(c.verdict == "DIFFERS" for c in self.comparisons)

    def __str__(self) -> str:
        """Return the table."""
        rows = [(c.output, c.absolute, c.relative, c.original, c.fused, c.verdict) for c in self.comparisons]
        headers = ("output", "max |difference|", "relative", "original vs float64", "fused vs float64", "fused is")
        return tabulate(rows, headers=headers, floatfmt=".2e")


def _largest(values: Iterable[float]) -> float:
    """Return the largest value, NaN if any is: ``max`` would skip it."""
    return max(values, key=lambda value: (math.isnan(value), value), default=0.0)


def verify(
    model: nn.Module,
    fused: Callable[..., Any],
    example_inputs: Any,
    *,
    tolerance: float | None = None,
    raises: bool = True,
) -> Verification:
    """Compare a fused model with the original, and both with a float64 copy of the original.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse, verify
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> verify(model, fx_fuse(model), torch.randn(2, 3, 8, 8)).relative < 1e-5
        True

    Args:
        model: the original; it is not changed.
        fused: what ``fx_fuse`` made of it, or any callable with the same arguments.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
        tolerance: the largest difference of fused and original that is allowed, divided by the largest exact value of
            the same output; by default what rounding can make of a deep model in the dtype of the output: 1e-9 for
            float64, 1e-3 for float32, 5e-2 for float16, 2e-1 for bfloat16, and none for whole numbers.
        raises: raise where a difference is over the tolerance; False leaves it to the table and ``ok``.

    Returns:
        The errors of each output tensor.

    Raises:
        FuseError: if a model raises, the outputs differ in structure, or a difference is over the tolerance.
    """
    with as_fuse_errors("The models could not be compared"):
        result = _verification(model, fused, Inputs.of(example_inputs), tolerance)
    if raises and not result.ok:
        wrong = next(c for c in result.comparisons if c.verdict == "DIFFERS")
        raise FuseError(
            f"The relative difference {wrong.relative:.2e} of {wrong.output} is over the tolerance "
            f"{wrong.tolerance:.2e}; nothing was changed. raises=False returns this table without an error:\n{result}"
        )
    return result


def _verification(model: nn.Module, fused: Callable[..., Any], inputs: Inputs, tolerance: Any) -> Verification:
    if not isinstance(model, nn.Module):
        raise FuseError(f"verify takes the original torch.nn.Module, and got {type(model).__name__}; pass the model.")
    if not callable(fused):
        raise FuseError(f"verify takes the fused model, and got {type(fused).__name__}; pass what fx_fuse returned.")
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance >= 0):
        raise FuseError(f"tolerance={tolerance!r} is no number from 0 on; leave it out for that of the dtype.")
    expected = reference(model, inputs)
    given = reference(fused, inputs, name="The fused model")
    exact = _exact(model, inputs)
    first, second, third = leaves(expected), leaves(given), leaves(exact)
    if not alike(expected, given):
        raise FuseError(
            f"The fused model returns {_describe(second)} where the original returns {_describe(first)}; "
            "nothing was changed. Pass the model that fx_fuse made of this original."
        )
    names = [pytree.keystr(path) or "output" for path, _ in pytree.tree_flatten_with_path(expected)[0]]
    names = names if len(names) == len(first) else [f"[{n}]" for n in range(len(first))]
    third = third if len(third) == len(first) else [None] * len(first)
    rows = zip(names, first, second, third, strict=True)
    return Verification(tuple(_compare(*row, tolerance) for row in rows if isinstance(row[1], Tensor)))


def _exact(model: nn.Module, inputs: Inputs) -> Any:
    """Run a float64 copy on the same inputs."""

    def widened(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    args, kwargs = pytree.tree_map(widened, (inputs.args, inputs.kwargs))
    try:
        with untouched(model):
            copied = copy.deepcopy(model).double()
        return Inputs(*args, **kwargs).call(copied)
    except Exception as error:
        raise FuseError(
            f"A float64 copy of {type(model).__name__} cannot run ({sentence(error)}); nothing was changed. "
            "Compare the outputs yourself if the model insists on its dtype."
        ) from error


def _describe(outputs: list[Any]) -> str:
    parts = [f"{o.dtype}{list(o.shape)}" if isinstance(o, Tensor) else repr(o) for o in outputs]
    return ", ".join(parts[:4]) + (" and more" if len(parts) > 4 else "")


def _compare(name: str, original: Tensor, fused: Tensor, exact: Tensor | None, tolerance: float | None) -> Comparison:
    if exact is None or exact.shape != original.shape:
        exact = torch.full_like(original, math.nan, dtype=torch.float64)  # rounding changed what was selected
    scale = largest(original if bool(exact.isnan().all()) else exact)
    gaps = [gap(a, b) for a, b in ((original, fused), (exact, original), (exact, fused))]
    rounded = original.dtype.is_floating_point or original.dtype.is_complex
    rounding = 4 * torch.finfo(original.dtype).eps if rounded else 0.0
    allowed = TOLERANCE.get(original.dtype.to_real() if rounded else original.dtype, 0.0)
    relative, of_original, of_fused = (value / scale for value in gaps)
    allowed = allowed if tolerance is None else tolerance
    return Comparison(name, gaps[0], relative, of_original, of_fused, rounding, allowed)
