"""The peak of extra memory while a model is fused: live tensor storage, not the size of the process.

Every storage that a kernel returns during the call is counted from its first appearance until it is freed, garbage
that only the cycle collector frees included. `fx_fuse` is compared with `torch.fx.experimental.optimization.fuse`,
and with its bound: the bytes of the folded weights and biases, plus the largest of them in float64.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import common
import torch
from torch import Tensor, nn
from torch.fx.experimental import optimization
from torch.utils import _pytree as pytree
from tqdm import tqdm

from fxfuse import fx_fuse
from fxfuse.cli import models
from fxfuse.modules.kernels import EachKernel

if TYPE_CHECKING:
    from collections.abc import Callable


class LiveBytes(EachKernel):
    """Counts the bytes of the storages that appear while it is active, as long as they live.

    Attributes:
        live: bytes now.
        peak: the most there were.
    """

    def __init__(self, known: nn.Module) -> None:
        """Leave out the tensors of a module that were there before."""
        super().__init__(self._see)
        self.live = self.peak = 0
        self._seen = weakref.WeakSet(t.untyped_storage() for t in tensors(known).values())

    def _see(self, _func: Any, result: Any) -> None:
        for value in pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen or storage.device.type == "meta":
            return
        self._seen.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.live -= size


@dataclass(frozen=True)
class Row:
    """Bytes; None where the pass of torch.fx fails.

    Attributes:
        model: its name.
        weights: all of the model's parameters and buffers.
        folded: the weights and biases that the result has of its own.
        largest: the largest of these in float64.
        peak: of fx_fuse.
        kept: what is left of that when it has returned.
        torch_fx: the peak of torch.fx's pass.
    """

    model: str
    weights: int
    folded: int
    largest: int
    peak: int
    kept: int
    torch_fx: int | None

    @property
    def bound(self) -> int:
        """What the pass needs at least, and may need at most."""
        return self.folded + self.largest


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def counted(run: Callable[[nn.Module], nn.Module], model: nn.Module) -> tuple[LiveBytes, nn.Module]:
    """Run a pass, and count what it allocates."""
    gc.collect()
    with LiveBytes(model) as counter:
        return counter, run(model)


def measure(name: str) -> Row:
    """Measure both passes on one model."""
    model = models.build(name, models.find(name))
    models.randomize(model)
    for module in model.modules():  # fresh ones change nothing, and what they fold into would count as unchanged
        if isinstance(module, nn.LayerNorm) and module.weight is not None:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    (counter, fused), before = counted(fx_fuse, model), tensors(model)
    peak, kept = counter.peak, counter.live  # now: it goes on counting what is freed
    own = {key: tensor for key, tensor in tensors(fused).items() if not _unchanged(tensor, before.get(key))}
    del fused
    try:
        torch_fx = counted(optimization.fuse, model)[0].peak
    except Exception:  # noqa: BLE001 - it fails in any way on what it cannot trace
        torch_fx = None
    weights, folded = (sum(t.nbytes for t in held.values()) for held in (before, own))
    return Row(name, weights, folded, max((8 * t.numel() for t in own.values()), default=0), peak, kept, torch_fx)


def _unchanged(tensor: Tensor, before: Tensor | None) -> bool:
    """Whether a tensor is that of the argument; a needless copy counts as unchanged, and so is not allowed for."""
    return before is not None and tensor.shape == before.shape and torch.equal(tensor, before)


def _cells(row: Row) -> list[str]:
    sizes = (row.weights, row.folded, row.largest, row.bound, row.peak, row.kept, row.torch_fx)
    megabytes = ["-" if size is None else f"{size / common.MEGABYTE:.2f}" for size in sizes]
    return [row.model, *megabytes, f"{row.peak / row.bound:.3f}" if row.bound else "-"]


def main() -> None:
    """Measure model by model."""
    options = common.parse(common.parser(__doc__))
    rows = [measure(name) for name in tqdm(options.models or common.classifiers(), file=sys.stderr)]
    headers = ["model, MB", *("weights", "folded", "float64", "bound", "peak", "kept", "torch.fx"), "peak/bound"]
    common.show([_cells(row) for row in rows], headers)
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
