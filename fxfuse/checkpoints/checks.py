"""What weights of the original model are, by their names, shapes and dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fxfuse.algebra.running_norms import TENSORS
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class Kind(NamedTuple):
    """What a tensor is, without its values.

    Attributes:
        shape: its size along each axis.
        stride: how it lies in memory.
        dtype: its dtype.
        device: where it is.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def laid_out(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this shape and dtype where, and as, the original's lay; itself if it lies so."""
        tensor = tensor.detach()
        if tensor.device == self.device and tensor.stride() == self.stride:
            return tensor
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device).copy_(tensor)


_PREFIXES = {
    "module.": "DataParallel, DistributedDataParallel and AveragedModel put",
    "_orig_mod.": "torch.compile puts",
    "model.": "Lightning modules mostly put",
}


def require_fitting(
    state: Mapping[str, Tensor],
    inputs: Mapping[str, Kind],
    needed: Collection[str],
    tied: Mapping[str, str],
    outputs: Collection[str],
) -> None:
    """Refuse weights of another model.

    Args:
        state: the weights.
        inputs: the names of the original, with what is there.
        needed: those without which nothing can be computed.
        tied: other names of the same tensor -> its first name, of which one is enough.
        outputs: the names of the fused model.

    Raises:
        FuseError: a sentence that lists what is missing, left over or different.
    """
    given = {tied.get(name, name) for name in state}
    missing = [name for name in inputs if name in needed and name not in given]
    left_over = [name for name in state if name not in inputs]
    if missing or left_over:
        raise FuseError(f"{_about_names(list(state), inputs, outputs, missing, left_over)} Nothing was changed.")
    wrong = [problem for name in inputs if name in state for problem in _problems(name, state, inputs[name])]
    if wrong:
        raise FuseError(f"These weights do not fit the original model: {_listed(wrong, '; ')}. Nothing was changed.")
    for name, first in tied.items():
        if name in state and first in state and not _same(state[name], state[first]):
            raise FuseError(
                f"{first} and {name} were one tensor when the model was fused, and are two here; nothing was changed. "
                "Fuse the model again with these weights."
            )


def _about_names(
    names: list[str], inputs: Mapping[str, Any], outputs: Collection[str], missing: list[str], left_over: list[str]
) -> str:
    prefix = _prefix(names, inputs)
    if prefix:
        who = _PREFIXES.get(prefix, "a module that holds the model puts")
        strip = f"{{n.removeprefix({prefix!r}): t for n, t in state.items() if n.startswith({prefix!r})}}"
        return f"The names begin with {prefix!r}, which {who} before them; pass {strip}."
    if "state_dict" in names:
        return "This is a checkpoint with weights inside, as Lightning writes them; pass checkpoint['state_dict']."
    if names and set(names) == set(outputs):
        return "These are weights of the fused model, which load_state_dict loads; pass those of the original model."
    told = [f"{len(missing)} missing ({_listed(missing)})"] if missing else []
    told += [f"{len(left_over)} left over ({_listed(left_over)})"] if left_over else []
    return f"These are not the weights of the original model: {', '.join(told)}."


def _prefix(names: list[str], inputs: Mapping[str, Any]) -> str:
    """Return what is before all names of the original."""
    first, there = next(iter(inputs), ""), set(names)
    found = (name.removesuffix(first) for name in names if name.endswith(f".{first}"))
    return next((prefix for prefix in found if all(prefix + name in there for name in inputs)), "")


def _problems(name: str, state: Mapping[str, Tensor], kind: Kind) -> Iterable[str]:
    sketch = getattr(state, "sketch", None)  # of a file: what there is, without reading it
    tensor: object = sketch(name) if sketch else state[name]
    if not isinstance(tensor, Tensor):
        yield f"{name} is no tensor but {type(tensor).__name__}"
    elif tensor.shape != kind.shape:
        yield f"{name} is of shape {tuple(tensor.shape)} and not {tuple(kind.shape)}"
    elif tensor.dtype != kind.dtype:
        yield f"{name} is {tensor.dtype} and not {kind.dtype} (convert it)"
    elif tensor.layout != torch.strided or type(tensor) not in TENSORS:
        yield f"{name} is {tensor.layout} of class {type(tensor).__name__}"
    elif tensor.is_meta and not sketch:
        yield f"{name} has no values"


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or bool((one == other.to(one.device)).all())


def _listed(items: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(items) - 5} more" if len(items) > 5 else ""
    return between.join(items[:5]) + more
