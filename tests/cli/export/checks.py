"""What the tests of the export share: files read by other means than those of fxfuse, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = ["--input-shape", "2,3,8,8"]


def onnx_nodes(path: str) -> list[str]:
    return [node.op_type for node in pytest.importorskip("onnx").load(path).graph.node]


def onnx_outputs(path: str, *inputs: Tensor) -> list[Tensor]:
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    outputs = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    return [torch.from_numpy(output) for output in outputs]


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def save(model: nn.Module, path: str, *inputs: Any, **options: Any) -> torch.export.ExportedProgram:
    program = torch.export.export(model.eval(), inputs, **options)
    torch.export.save(program, path)
    return program


def sentence(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """The one line on stderr of an export that must fail and leave every file as it was."""
    before = contents(folder)
    try:
        status: object = main(["export", *arguments])
    except SystemExit as leave:
        status = leave.code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("usage")]
    assert (status, captured.out, len(lines)) == (2, "", 1), captured.err
    assert contents(folder) == before
    return lines[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
