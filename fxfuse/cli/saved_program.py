"""Saved exported programs (``.pt2``): read without running a pickle, and called on inputs that fit them."""

from __future__ import annotations

import contextlib
import os
import pickle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.export.pt2_archive import PT2ArchiveReader
from torch.utils import _pytree as pytree

from fxfuse.cli.failures import explained
from fxfuse.modules.example_inputs import Inputs
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn
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
        raise FuseError(f'"{path}" is not a file, so nothing was written; check the path')
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
        f'"{path}" holds {kind}, which can run code when it is read, so nothing was written;'
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


def inputs_of(program: ExportedProgram, module: nn.Module) -> list[Inputs]:
    """The inputs that a program was saved with, or random ones; and of other sizes too, where sizes may change.

    Args:
        program: as it was loaded.
        module: the same, to run.

    Raises:
        FuseError: the program does not run on its own inputs.
    """
    stored = program.example_inputs
    first = Inputs(*stored[0], **stored[1]) if stored else _random(program, other=False)
    with explained("the program does not run on inputs of its own shapes", "run it in Python to see more"):
        first.call(module)
    if not _sizes(program, other=True):
        return [first]
    second = _random(program, other=True)
    try:
        with explained("", ""):
            second.call(module)
    except FuseError:  # the sizes were guessed: what relates them to each other is not all in the ranges
        return [first]
    return [first, second]


def _random(program: ExportedProgram, *, other: bool) -> Inputs:
    """Random inputs of the shapes that the program was exported with, or of others that it takes."""
    draw = torch.Generator().manual_seed(0)
    sizes = _sizes(program, other=other)
    values = [_fixed(value, sizes) for value in _user_inputs(program)]
    leaves = [_drawn(value, sizes, draw) if isinstance(value, Tensor) else value for value in values]
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return Inputs(*args, **kwargs)


def _user_inputs(program: ExportedProgram) -> list[Any]:
    """What stands in the graph for each argument: a tensor without values, a symbol, or the only value allowed."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    arguments = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    return [arg.value if isinstance(arg, ConstantArgument) else values[arg.name] for arg in arguments]


def _sizes(program: ExportedProgram, *, other: bool) -> dict[Any, int]:
    """A number for each symbol in the inputs: its value at the export, if that is known, or the one beside it."""
    numbers: dict[Any, int] = {}
    for value in _user_inputs(program):
        for size in value.shape if isinstance(value, Tensor) else (value,):
            if not isinstance(size, torch.SymInt):
                continue
            for symbol in size.node.expr.free_symbols:
                numbers.setdefault(symbol, max(2, int(program.range_constraints[symbol].lower)))
            hint: Any = size.node.hint if size.node.expr.is_Symbol and size.node.has_hint() else None
            numbers |= {} if hint is None else {size.node.expr: int(hint)}
    if not other:
        return numbers
    return {symbol: _beside(number, program.range_constraints[symbol]) for symbol, number in numbers.items()}


def _beside(number: int, limits: Any) -> int:
    """A neighbour of the number within the limits."""
    return next(n for n in (number + 1, number - 1, number) if limits.lower <= n <= limits.upper)


def _fixed(value: Any, sizes: dict[Any, int]) -> Any:
    """A symbol as a number; anything else as it is."""
    return int(value.node.expr.subs(sizes)) if isinstance(value, torch.SymInt) else value


def _drawn(like: Tensor, sizes: dict[Any, int], draw: torch.Generator) -> Tensor:
    """A random tensor; of integers, which may be indices, the two smallest."""
    shape = [_fixed(size, sizes) for size in like.shape]
    floating = like.is_floating_point() or like.is_complex()
    made = torch.randn(shape, generator=draw) if floating else torch.randint(2, shape, generator=draw)
    return made.to(like.device, like.dtype)
