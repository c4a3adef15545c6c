"""The plans of lowering in plain torch, on any device and in any dtype: what the emitters are tested by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.lowering.layer import Layer, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class ReferenceEmitter:
    """Runs the plan of any emitter in plain torch, on any device and in any dtype: what the others are tested by."""

    def obstacle(self, layer: Layer) -> str:
        """Take every layer."""
        del layer
        return ""

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return the steps in plain torch; a sum in place is written where the plan says."""
        del missed
        steps = plain(layer)

        def run(x: Tensor, other: Tensor) -> Tensor:
            y = steps(x, other)
            return other.copy_(y) if y.shape == other.shape and y.dtype == other.dtype else y

        return run if layer.in_place else steps
