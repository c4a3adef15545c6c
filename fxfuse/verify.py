"""Original and fused side by side: how far apart, and which of the two is closer to the exact result."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse.examples import Inputs, leaves, reference, untouched
from fxfuse.report import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Comparison:
    """The errors of one output tensor; relative ones are divided by the largest exact value.

    Attributes:
        output: where the tensor stands in the output, such as ``['out']`` or ``[0]``.
        absolute: largest absolute difference of fused and original.
        relative: the same, relative.
        original: largest relative error of the original against a float64 copy of it.
        fused: largest relative error of the fused model against the same copy.
    """

    output: str
    absolute: float
    relative: float
    original: float
    fused: float


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found; prints as a table, with a line for each output tensor."""

    comparisons: tuple[Comparison, ...]

    @property
    def absolute(self) -> float:
        """The largest absolute difference of any output."""
        return max((c.absolute for c in self.comparisons), default=0.0)

    @property
    def relative(self) -> float:
        """The largest relative difference of any output."""
        return max((c.relative for c in self.comparisons), default=0.0)

    def __str__(self) -> str:
        """Return the table."""
        rows = [(c.output, c.absolute, c.relative, c.original, c.fused, _verdict(c)) for c in self.comparisons]
        headers = ("output", "max |difference|", "relative", "original vs float64", "fused vs float64", "folding")
        return tabulate(rows, headers=headers, floatfmt=".2e")


def _verdict(comparison: Comparison) -> str:
    if comparison.fused == comparison.original:
        return "changed nothing"
    return "gained accuracy" if comparison.fused < comparison.original else "lost accuracy"


def verify(
    model: nn.Module,
    fused: Callable[..., Any],
    example_inputs: Any,  # noqa: ANN401 - whatever the model takes
    *,
    tolerance: float | None = None,
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
        tolerance: raise if the relative difference of fused and original is larger than this.

    Returns:
        The errors of each output tensor.

    Raises:
        FuseError: if a model raises, the outputs differ in structure, or the difference is over the tolerance.
    """
    inputs = Inputs.of(example_inputs)
    expected = reference(model, inputs)
    given = _run(fused, inputs)
    exact = _exact(model, inputs)
    names = [pytree.keystr(path) or "output" for path, _ in pytree.tree_flatten_with_path(expected)[0]]
    first, second, third = leaves(expected), leaves(given), leaves(exact)
    same = len(first) == len(second) == len(third) and all(map(_alike, first, second))
    if not same:
        raise FuseError(
            f"The fused model returns {_describe(second)} where the original returns {_describe(first)}; "
            "nothing was changed. Pass the model that fx_fuse made of this original."
        )
    names = names if len(names) == len(first) else [f"[{n}]" for n in range(len(first))]
    rows = zip(names, first, second, third, strict=True)
    result = Verification(tuple(_compare(*row) for row in rows if isinstance(row[1], Tensor)))
    if tolerance is not None and not result.relative <= tolerance:
        raise FuseError(f"The relative difference {result.relative:.2e} is over the tolerance {tolerance:.2e}:\n{result}")
    return result


def _run(fused: Callable[..., Any], inputs: Inputs) -> Any:  # noqa: ANN401 - whatever the model returns
    if isinstance(fused, nn.Module):
        return reference(fused, inputs)
    with torch.no_grad():
        return fused(*inputs.args, **inputs.kwargs)


def _exact(model: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401 - whatever the model returns
    """Run a float64 copy on the same inputs; a model that insists on its dtype is its own reference."""

    def widened(value: Any) -> Any:  # noqa: ANN401 - leaves of any type
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    args, kwargs = pytree.tree_map(widened, (inputs.args, dict(inputs.kwargs)))
    try:
        with untouched(model):
            copied = copy.deepcopy(model).double()
        return Inputs(args, kwargs).call(copied)
    except Exception as error:
        raise FuseError(
            f"A float64 copy of {type(model).__name__} cannot run ({type(error).__name__}: {error}); nothing was changed. "
            "Compare the outputs yourself if the model insists on its dtype."
        ) from error


def _alike(one: Any, other: Any) -> bool:  # noqa: ANN401 - leaves of any type
    return isinstance(one, Tensor) == isinstance(other, Tensor) and (
        not isinstance(one, Tensor) or (one.shape == other.shape and one.dtype == other.dtype)
    )


def _describe(outputs: list[Any]) -> str:
    parts = [f"{str(o.dtype).removeprefix('torch.')}{list(o.shape)}" if isinstance(o, Tensor) else repr(o) for o in outputs]
    return ", ".join(parts[:4]) + (" and more" if len(parts) > 4 else "")  # noqa: PLR2004


def _compare(name: str, original: Tensor, fused: Tensor, exact: Tensor) -> Comparison:
    if not original.numel():
        return Comparison(name, 0.0, 0.0, 0.0, 0.0)
    first, second, third = (t.detach().double() for t in (original, fused, exact))
    scale = third.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    gaps = [(a - b).abs().max() for a, b in ((second, first), (first, third), (second, third))]
    relative, against_original, against_fused = (float(gap / scale) for gap in gaps)
    return Comparison(name, float(gaps[0]), relative, against_original, against_fused)
