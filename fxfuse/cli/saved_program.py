"""Saved exported programs (``.pt2``), read without running a pickle."""

from __future__ import annotations

import contextlib
import os
import pickle
from typing import TYPE_CHECKING

import torch
from torch.export.pt2_archive import PT2ArchiveReader

from fxfuse.cli.failures import explained
from fxfuse.modules.example_inputs import Inputs
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.export import ExportedProgram

# Records of an archive that torch unpickles without a way to restrict it, or loads as machine code.
RUNS_CODE = {
    "opaque_obj_": "a pickled Python object",
    "custom_obj_": "an object of a C++ extension",
    "data/aotinductor/": "a compiled library",
}
WEIGHTS_ONLY = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}


def load(path: Path) -> ExportedProgram:
    """Read a program, and refuse what torch would unpickle with code in it.

    Args:
        path: a file that ``torch.export.save`` wrote.

    Raises:
        FuseError: there is no such file, it is no exported program, or it holds more than tensors and a graph.
    """
    if not path.is_file():
        raise FuseError(f'"{path}" is not a file, so nothing was done; check the path')
    with explained(f'"{path}" cannot be read as an exported program', "write it again with torch.export.save"):
        with PT2ArchiveReader(str(path)) as archive:
            names = [name.lower() for name in archive.get_file_names()]
        for mark, kind in RUNS_CODE.items():
            if any(mark in name for name in names):
                raise _runs_code(path, kind)
        try:
            with _weights_only():
                return torch.export.load(path)
        except pickle.UnpicklingError as error:
            raise _runs_code(path, "a pickle of more than tensors") from error


def _runs_code(path: Path, kind: str) -> FuseError:
    """What to say of a file that was not opened any further."""
    return FuseError(
        f'"{path}" holds {kind}, which can run code when it is read, so nothing was done;'
        " if you trust it, load it in Python and call fx_fuse on it"
    )


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let ``torch.load`` make nothing but tensors and plain data, whatever its caller asks for.

    ``torch.export.load`` has no argument for it, and where such a load fails it tries again without the restriction.
    The environment stands above both.
    """
    before = {name: os.environ.get(name) for name in WEIGHTS_ONLY}
    os.environ.update(WEIGHTS_ONLY)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def inputs_of(program: ExportedProgram) -> Inputs:
    """Return the inputs that a program was exported with, which ``torch.export.save`` stores beside it.

    Raises:
        FuseError: if there are none.
    """
    if not program.example_inputs:
        raise FuseError(
            "the program holds no example inputs, so nothing was done; save it again with torch.export.save, or pass"
            " --input"
        )
    args, kwargs = program.example_inputs
    return Inputs(*args, **kwargs)
