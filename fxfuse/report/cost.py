"""What an operation costs, before and after a merge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Multiply-adds, parameters and kernels.

    Example:
        >>> from fxfuse.extend import Cost
        >>> str(Cost(None, 36, 1) + Cost(None, 8, 1))
        '44 parameters, 2 kernels'

    Attributes:
        multiply_adds: for one element of the batch; None where the sizes of the values are not known.
        parameters: elements of weights, biases and statistics.
        kernels: operations that are called.
    """

    multiply_adds: int | None = 0
    parameters: int = 0
    kernels: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return both together; what is not known of one is left out."""
        known = [n for n in (self.multiply_adds, other.multiply_adds) if n is not None]
        total = sum(known) if known else None
        return Cost(total, self.parameters + other.parameters, self.kernels + other.kernels)

    def __sub__(self, other: Cost) -> Cost:
        """Return what this one costs more."""
        unknown = self.multiply_adds is None or other.multiply_adds is None
        more = None if unknown else (self.multiply_adds or 0) - (other.multiply_adds or 0)
        return Cost(more, self.parameters - other.parameters, self.kernels - other.kernels)

    def __str__(self) -> str:
        """Return the numbers that are known, in words."""
        adds = "" if self.multiply_adds is None else f"{self.multiply_adds:,} multiply-adds, "
        return f"{adds}{self.parameters:,} parameters, {self.kernels:,} kernel{'' if self.kernels == 1 else 's'}"
