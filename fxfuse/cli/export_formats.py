"""The formats that ``fxfuse export`` writes: a program is converted, counted, saved, and read again to be run."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fxfuse.cli import saved_program
from fxfuse.cli.failures import first_line
from fxfuse.cli.models import need
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.export import ExportedProgram

    from fxfuse.modules.example_inputs import Inputs

    Run = Callable[[Inputs], Any]


@dataclass(frozen=True)
class Format:
    """What can be done in one format.

    Attributes:
        packages: what has to be installed.
        convert: a program, and names of the axes of its input that may have any size -> what is saved.
        operations: what is saved -> the names of its operations.
        save: what is saved, and a path -> a file.
        load: a path -> a function that runs what the file holds.
    """

    packages: tuple[str, ...]
    convert: Callable[[ExportedProgram, Mapping[int, str]], Any]
    operations: Callable[[Any], list[str]]
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Run]


@dataclass(frozen=True)
class Counts:
    """How many operations a graph has, and how many of them are batch norms."""

    nodes: int
    norms: int

    @staticmethod
    def of(operations: list[str]) -> Counts:
        """Count names of operations, of ATen or of ONNX."""
        plain = [name.replace("_", "").lower() for name in operations]
        return Counts(len(plain), sum("batchnorm" in name for name in plain))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end takes the place of ``path``, and after an error nothing does.

    The name stays, since an ONNX file over 2 GB names the file of its weights.

    Raises:
        FuseError: the folder cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder) / path.name
            for made in sorted(Path(folder).iterdir(), key=lambda made: made.name == path.name):
                made.replace(path.parent / made.name)  # the weights before the model that needs them
    except OSError as error:
        raise FuseError(f'"{path}" cannot be written: {first_line(error)}; it is as it was') from error


def _to_onnx(program: ExportedProgram, axes: Mapping[int, str]) -> Any:
    converted: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    if axes:
        converted._rename_dynamic_axes((dict(axes),))  # as torch does for a module
    return converted


def _onnx_operations(converted: Any) -> list[str]:
    return [node.op_type for node in need("onnx_ir", "export").traversal.RecursiveGraphIterator(converted.model.graph)]


def _save_onnx(converted: Any, path: Path) -> None:
    converted.save(path)  # in one file, if it is below 2 GB


def _load_onnx(path: Path) -> Run:
    runtime = need("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors: what it thinks of a graph is not for whoever exports it
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
        arrays = [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


def operations(program: ExportedProgram) -> list[str]:
    """The names of the operations of a program."""
    modules = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    return [str(node.target) for m in modules for node in m.graph.nodes if node.op == "call_function"]


def _load_program(path: Path) -> Run:
    module = saved_program.load(path).module()
    return lambda inputs: inputs.call(module)


FORMATS = {
    ".onnx": Format(("onnx", "onnxscript", "onnxruntime"), _to_onnx, _onnx_operations, _save_onnx, _load_onnx),
    ".pt2": Format((), lambda program, _axes: program, operations, torch.export.save, _load_program),
}
