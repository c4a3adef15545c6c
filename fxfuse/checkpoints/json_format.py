"""What a plan holds, as JSON: what JSON has no word for is a dictionary of one tag."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fxfuse.algebra.tape import Value
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = 1 << 22  # bytes of a constant: weights belong into a checkpoint, and not into a plan


def encoded(item: Any) -> Any:
    """Return an argument, a result or a constant as JSON.

    Raises:
        FuseError: if JSON cannot hold it.
    """
    if isinstance(item, (list, tuple)):
        return [encoded(one) for one in item]
    for kind, (tag, write, _) in _TAGS.items():
        if type(item) is kind:
            return {tag: write(item)}
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise FuseError(f"The plan holds {item!r}, which JSON has no word for; nothing was written.")


def decoded(item: Any) -> Any:
    """Return what ``encoded`` made JSON of.

    Raises:
        KeyError: if it made none of this.
    """
    if isinstance(item, list):
        return [decoded(one) for one in item]
    if not isinstance(item, dict):
        return item
    [(tag, content)] = item.items()
    return _READ[tag](content)


def _word(item: Any) -> str:
    return str(item).removeprefix("torch.")


def _stored(tensor: Tensor) -> list[Any]:
    if tensor.nbytes > LARGEST:
        raise FuseError(
            f"A constant of {tensor.nbytes:,} bytes that is in no state dict went into the weights, and is too large "
            "for a plan; nothing was written. Register it as a buffer of the model."
        )
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return [_word(tensor.dtype), list(tensor.shape), base64.b64encode(bytes(values.tolist())).decode()]


def _restored(content: list[Any]) -> Tensor:
    dtype, shape, text = content
    values = bytearray(base64.b64decode(text))
    kind: torch.dtype = getattr(torch, dtype)
    return torch.frombuffer(values, dtype=kind).reshape(shape) if values else torch.empty(shape, dtype=kind)


_TAGS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    Value: ("tensor", int, Value),
    dict: ("named", lambda d: {str(k): encoded(v) for k, v in d.items()}, lambda d: {k: decoded(d[k]) for k in d}),
    torch.dtype: ("dtype", _word, lambda word: getattr(torch, word)),
    torch.layout: ("layout", _word, lambda word: getattr(torch, word)),
    torch.memory_format: ("memory_format", _word, lambda word: getattr(torch, word)),
    torch.device: ("device", str, torch.device),
    Tensor: ("constant", _stored, _restored),
}
_READ = {tag: read for tag, _, read in _TAGS.values()}
