"""Every error is one sentence, and leaves every file as it was."""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxfuse import FuseError
from fxfuse.cli import export, failures
from fxfuse.cli.export_formats import FORMATS, replacing
from fxfuse.cli.main import main
from tests.cli.export.checks import SHAPE, save, sentence


def test_verify_refuses_what_differs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(export, "fx_fuse", lambda *_: nn.Sequential(nn.Conv2d(3, 2, 5)).eval())
    expected = 'what was made of "own_exports:small" differs from it by a relative'
    assert expected in sentence(capsys, folder, "own_exports:small", "old.pt2", *SHAPE, "--verify")
    assert main(["export", "own_exports:small", "old.pt2", *SHAPE]) == 0, "it only prints the error"


def corrupted(path: str) -> None:
    save(nn.Linear(2, 2), path, torch.randn(1, 2))
    Path(path).write_bytes(Path(path).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("own_exports:small out.bin", '"out.bin" must end in .onnx or .pt2'),
        ("own_exports:small missing/out.pt2", '"missing/out.pt2" cannot be written'),
        ("missing.pt2 old.pt2", '"missing.pt2" is not a file, so nothing was done'),
        ("corrupted.pt2 old.pt2", '"corrupted.pt2" cannot be read as an exported program (RuntimeError'),
        ("own_exports.py old.pt2", '"own_exports.py" is a file, and this takes the name of a model'),
        ("own_exports:missing old.pt2", '"own_exports:missing" cannot be imported'),
        ("own_exports:small old.pt2 --input-shape 2,x", '"2,x" must be whole numbers over zero'),
        ("own_exports:small old.pt2 --input-shape 2,5,8,8", "does not run on float32 of shape (2, 5, 8, 8)"),
        ("own_exports:small old.pt2 --input-size 8 --input-shape 1,3,8,8", "not allowed with argument"),
        ("own_exports:Branches old.pt2", 'torch.export refuses "own_exports:Branches"'),
        ("own_exports:FixesTheBatch old.pt2 --input-shape 2,4 --dynamic-batch", "leave out --dynamic-batch"),
        ("own_exports:small old.pt2 --dynamic-axes 0:batch", '"0:batch" does not name axes; write 0=batch,2=height'),
        ("own_exports:small old.pt2 --input-size 8 --dynamic-axes 4=time", "The input has 4 axes, and --dynamic-axes"),
        ("own_exports:small old.pt2 --input own_exports.py", "is no file that numpy.save wrote"),
        (
            "corrupted.pt2 old.pt2 --dynamic-batch",
            "leave out --input-shape, --input-size, --dynamic-batch, --dynamic-axes and --weights",
        ),
    ],
)
def test_errors_are_sentences(folder: Path, capsys: Any, arguments: str, expected: str) -> None:
    corrupted("corrupted.pt2")
    assert expected in sentence(capsys, folder, *arguments.split())


def test_an_input_of_another_dtype_is_told_with_what_to_pass(folder: Path, capsys: Any) -> None:
    numpy = pytest.importorskip("numpy")
    numpy.save("x.npy", numpy.ones((1, 3, 8, 8)))
    told = sentence(capsys, folder, "own_exports:small", "old.pt2", "--input", "x.npy")
    assert "does not run on float64 of shape (1, 3, 8, 8)" in told
    assert told.endswith("pass --input of the shape and dtype it takes")


def test_what_onnx_does_not_know(folder: Path, capsys: Any) -> None:
    pytest.importorskip("onnxscript")
    expected = '"own_exports:NotInOnnx" cannot be written as .onnx (DispatchError: No ONNX function found for'
    assert expected in sentence(capsys, folder, "own_exports:NotInOnnx", "old.onnx", *SHAPE)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for other in {"onnx", "onnxscript", "onnxruntime"} - {package}:
        monkeypatch.setitem(sys.modules, other, pytest)  # there, whatever it is
    monkeypatch.setitem(sys.modules, package, None)
    expected = f'{package} is not installed; it comes with the extra "export": pip install "fxfuse[export]"'
    assert expected in sentence(capsys, folder, "own_exports:small", "old.onnx", *SHAPE)


def test_a_disk_that_fills_up_leaves_the_old_file(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_program: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, ".pt2", dataclasses.replace(FORMATS[".pt2"], save=half))
    expected = '"own_exports:small" cannot be written as .pt2 (OSError: [Errno 28] No space left on device)'
    assert expected in sentence(capsys, folder, "own_exports:small", "old.pt2", *SHAPE)


def test_torch_prints_nothing_beside_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    @failures.explained("no", "try again")
    def fails() -> None:
        logging.getLogger("torch").error("a traceback")
        warnings.warn("a warning", stacklevel=1)
        raise RuntimeError("it failed") from ValueError("First sentence. And more\nand more")

    with pytest.raises(FuseError, match=r"^no \(ValueError: First sentence\), so nothing was done; try again$"):
        fails()
    assert not caplog.records
    logging.getLogger("torch").error("after it")
    assert caplog.records


def test_weights_in_a_file_of_their_own_come_along(folder: Path) -> None:
    with replacing(folder / "old.onnx") as path:
        (path.parent / "old.onnx.data").write_bytes(b"weights")
        path.write_bytes(b"graph")
    names = ("old.onnx", "old.onnx.data")
    assert [(folder / name).read_bytes() for name in names] == [b"graph", b"weights"]
    assert not list(folder.glob(".*"))
