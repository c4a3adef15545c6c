"""One emitter for all devices: each layer gets a kernel of the device that its weight is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxfuse.lowering.cpu import CpuEmitter
from fxfuse.lowering.gpu import GpuEmitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fxfuse.lowering.layer import Layer


class DeviceEmitter:
    """Makes kernels for whatever device a layer is on."""

    def __init__(self, *, exact_nan: bool = False) -> None:
        """Remember whether activations have to pass NaN on; those of the GPU always do."""
        self._emitters = {"cpu": CpuEmitter(exact_nan=exact_nan), "cuda": GpuEmitter()}

    def obstacle(self, layer: Layer) -> str:
        """Return why there is no kernel for a layer, empty where there is one."""
        device = layer.weight.device.type
        if device not in self._emitters:
            return f"there are no kernels for the device {device}"
        return self._emitters[device].obstacle(layer)

    def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
        """Return a kernel; ``missed`` is told where torch's own operations run in its place."""
        return self._emitters[layer.weight.device.type].emit(layer, missed)
