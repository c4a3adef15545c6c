"""The peak of memory while a state dict streams through a plan, beyond the output: by default of 2 GB.

Tensors of the input are made when they are read, and counted; what the stream gives is counted as output. The bound is
two of the largest tensors in float64.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping

import common
import torch
from pass_memory import LiveBytes
from torch import Tensor, nn

from fxfuse import Report, fx_fuse

LAYERS, WIDTH = 30, 4096


class Drawn(Mapping[str, Tensor]):
    """A state dict of which each tensor is drawn when it is read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Have tensors of the shapes in ``state``."""
        self._shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Draw a tensor."""
        shape, dtype = self._shapes[name]
        return torch.rand(shape) + 0.5 if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)

    def sketch(self, name: str) -> Tensor:
        """Return the same without values."""
        shape, dtype = self._shapes[name]
        return torch.empty(shape, dtype=dtype, device="meta")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._shapes)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._shapes)


def main() -> None:
    """Fuse, stream and print."""
    common.parse(common.parser(__doc__))
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())]
    model = nn.Sequential(*layers).eval()
    plan, state = Report.of(fx_fuse(model)).plan, Drawn(model.state_dict())
    total = sum(tensor.nbytes for tensor in model.state_dict().values())
    del model, layers
    gc.collect()
    output = most = 0
    counted = LiveBytes(nn.Module())
    with counted:
        kept = []
        for _, tensor in plan.stream(state):
            most = max(most, counted.peak - output)
            output += tensor.nbytes
            counted.peak = counted.live
            kept.append(tensor)
    sizes = {
        "input": total,
        "output": output,
        "beyond it": most,
        "two of the largest in float64": 2 * 8 * WIDTH * WIDTH,
    }
    print(", ".join(f"{name} {size / common.MEGABYTE:,.0f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
