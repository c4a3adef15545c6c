"""Checks that a fused model carries with it, for what a fold had to assume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

if TYPE_CHECKING:
    from types import CodeType, FrameType


def require_rank(
    input: Tensor,  # noqa: A002 - torch's name for it
    axes: int,
    where: str,
    or_more: bool = False,  # noqa: FBT001, FBT002 - graphs pass it by position
) -> Tensor:
    """Return ``input`` if it has the number of axes that a fold assumed.

    Args:
        input: the value behind the fold.
        axes: the number of axes assumed.
        where: the path of the norm that was folded.
        or_more: whether it may have more axes.

    Raises:
        ValueError: if it has another number of axes.
    """
    if has_torch_function_unary(input):  # a proxy: tracing keeps the check in the graph
        return handle_torch_function(require_rank, (input,), input, axes, where, or_more)
    if input.dim() < axes or (input.dim() > axes and not or_more):
        number = f"{axes} axes{' or more' if or_more else ''}"
        raise ValueError(
            f"fxfuse folded '{where}' for inputs with {number} there, batch included, and got one with "
            f"{input.dim()}. Add the batch axis, or fuse again with example_inputs of this shape."
        )
    return input


class AssumedRank(nn.Identity):
    """Stands where a norm was folded under the assumption that its input has ``axes`` axes.

    Args:
        axes: the number of axes assumed, batch included.
        where: the path of the norm.
        or_more: whether it may have more axes.
    """

    def __init__(self, axes: int, where: str, or_more: bool = False) -> None:  # noqa: FBT001, FBT002 - as require_rank
        """Remember the assumption."""
        super().__init__()
        self.or_more = or_more
        self.axes = axes
        self.where = where

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Return ``input`` if the assumption holds."""
        return require_rank(input, self.axes, self.where, self.or_more)

    def extra_repr(self) -> str:
        """Show the assumption."""
        return f"axes={self.axes}{' or more' if self.or_more else ''}"


def require_value(value: object, expected: object, name: str) -> object:
    """Return ``value`` if it is what the model was captured with.

    Raises:
        ValueError: if it is another value, for which another branch of the model might have run.
    """
    if has_torch_function_unary(value):
        return handle_torch_function(require_value, (value,), value, expected, name)
    if expected is Tensor and isinstance(value, Tensor):
        return value  # the class stands for any tensor
    # A graph keeps lists and dictionaries as classes of its own, derived from Python's.
    related = isinstance(value, type(expected)) or isinstance(expected, type(value))
    same = related and isinstance(value, bool) == isinstance(expected, bool) and value == expected
    if not (value is expected or same):
        raise ValueError(
            f"fxfuse captured this model with {name}={expected!r}, and it was called with another value. "
            "Fuse again with example_inputs that pass this value."
        )
    return value


def require_count(values: Any, count: int, name: str) -> Any:
    """Return a list of values if it is as long as that with which the model was captured.

    Raises:
        ValueError: if it has another length.
    """
    if has_torch_function_unary(values):
        return handle_torch_function(require_count, (values,), values, count, name)
    if len(values) != count:
        raise ValueError(
            f"fxfuse captured this model with {count} values in {name}, and it was called with {len(values)}. "
            "Fuse again with example_inputs of this length, or pass structure='module'."
        )
    return values


_RANK_CHECKS: dict[CodeType, int | None] = {
    cls._check_input_dim.__code__: axes
    for cls, axes in ((nn.BatchNorm1d, None), (nn.BatchNorm2d, 4), (nn.BatchNorm3d, 5))
}


def checks_rank(frame: FrameType) -> bool:
    """Whether one of torch's batch norms compares the number of axes of its input; the check becomes a node."""
    if frame.f_code not in _RANK_CHECKS:
        return False
    axes = _RANK_CHECKS[frame.f_code]
    if axes is not None:
        require_rank(frame.f_locals["input"], axes, type(frame.f_locals["self"]).__name__)
    return True
