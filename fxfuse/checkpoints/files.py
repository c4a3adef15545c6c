"""Files of weights, read without running anything that is in them."""

from __future__ import annotations

import importlib
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fxfuse.report.errors import FuseError, sentence

SAFETENSORS = ".safetensors"


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file by their names: of ``.safetensors`` one at a time, as they are asked for.

    Args:
        path: a file of safetensors, or of ``torch.save``.

    Raises:
        FuseError: if it cannot be read, or holds anything else than tensors.
    """
    if not path.is_file():
        raise FuseError(f'There is no file "{path}"; nothing was done.')
    if path.suffix == SAFETENSORS:
        return _Safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise FuseError(
            f'"{path}" holds Python objects, such as a whole model, and not only tensors, so it was not opened: that '
            "would run its code. Save model.state_dict() in Python."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if "TorchScript" in str(error):
            raise FuseError(
                f'"{path}" is a scripted model, which has names of its own; nothing was done. Save the state_dict() of '
                "the original model."
            ) from error
        raise FuseError(f'"{path}" is damaged, cut off or no file of weights ({sentence(error)}).') from error
    inside = found.get("state_dict", found) if isinstance(found, Mapping) else found  # Lightning's has more besides
    if not isinstance(inside, Mapping):
        raise FuseError(f'"{path}" holds {type(inside).__name__} and no state dict; nothing was done.')
    return inside


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the format of the file's ending, all or nothing.

    Raises:
        FuseError: if the file cannot be written.
    """
    own, places = dict(tensors), set[int]()
    for name, tensor in tensors.items():
        if path.suffix == SAFETENSORS:  # which takes no two names for the same memory
            own[name] = tensor.clone() if tensor.data_ptr() in places else tensor.contiguous()
            places.add(tensor.data_ptr())
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            if path.suffix == SAFETENSORS:
                _safetensors().save_file(own, draft)
            else:
                torch.save(own, draft)
            os.replace(draft, path)  # noqa: PTH105 - in one step
    except OSError as error:
        raise FuseError(f'"{path}" could not be written ({sentence(error)}); it is what it was.') from error


class _Safetensors(Mapping[str, Tensor]):
    """A file of which each tensor is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Read what there is, and no tensor."""
        _safetensors()
        self.path = path
        try:
            self._file: Any = importlib.import_module("safetensors").safe_open(path, framework="pt")
        except Exception as error:  # a class of safetensors' own
            raise FuseError(f'"{path}" is damaged, cut off or no file of safetensors ({sentence(error)}).') from error
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._names)

    def sketch(self, name: str) -> Tensor:
        """Return a tensor of the same shape and dtype, without values."""
        part = self._file.get_slice(name)
        shape = part.get_shape()
        return self._file.get_tensor(name).to("meta") if not shape else part[:0].new_empty(shape, device="meta")


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise FuseError(
            "safetensors is not installed; pip install safetensors, or use a file of torch.save."
        ) from error
