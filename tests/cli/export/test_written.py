"""What `fxfuse export` writes: read back here by other means, it is the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fxfuse.cli import models, saved_program
from fxfuse.cli.main import main
from tests.cli.export.checks import SHAPE, onnx_nodes, onnx_outputs, operators, save
from tests.support.helpers import assert_equal, run


@pytest.fixture
def small() -> nn.Module:
    """The model `own_exports:small`, the same object as that of the command."""
    return models.build("own_exports:small", models.find("own_exports:small"))


def test_a_program_takes_other_batches_and_holds_no_norm(small: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "own_exports:small", "out.pt2", *SHAPE, "--dynamic-batch", "--verify"]) == 0
    header, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == "model nodes norms exporter alone input error".split()
    assert first.split()[:-1] == "own_exports:small 4 -> 3 1 -> 0 1 2x3x8x8".split()
    assert second.split()[0] == "3x3x8x8"
    program = torch.export.load("out.pt2")
    assert not [name for name in operators(program) if "norm" in name]
    x = torch.randn(5, 3, 8, 8)
    assert_equal(run(small, (x,)), run(program.module(), (x,)), rtol=1e-6)


def test_onnx_in_one_file_that_takes_other_batches() -> None:
    pytest.importorskip("onnxscript")
    assert main(["export", "own_exports:shared", "out.onnx", *SHAPE, "--dynamic-batch", "--verify"]) == 0
    assert onnx_nodes("out.onnx") == ["Conv", "Conv"]
    assert not Path("out.onnx.data").exists()
    x = torch.randn(5, 3, 8, 8)
    shared = models.build("", models.find("own_exports:shared"))
    assert_equal([run(shared, (x,))], onnx_outputs("out.onnx", x), rtol=1e-5)


def test_axes_have_names_in_onnx_and_take_other_sizes(small: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    axes = ["--dynamic-axes", "0=batch,2=height"]
    assert main(["export", "own_exports:small", "out.onnx", *SHAPE, *axes, "--verify"]) == 0
    assert "3x3x9x8" in capsys.readouterr().out, "other sizes of both"
    (given,) = onnx.load("out.onnx").graph.input
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 3, "height", 8]
    x = torch.randn(5, 3, 17, 8)
    assert_equal([run(small, (x,))], onnx_outputs("out.onnx", x), rtol=1e-5)


def test_the_file_is_run_on_an_input_of_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    numpy = pytest.importorskip("numpy")
    numpy.save("x.npy", numpy.ones((2, 3, 7, 9), numpy.float32))
    for output in ("out.pt2", "out.onnx"):
        if output == "out.onnx":
            pytest.importorskip("onnxscript")
        assert main(["export", "own_exports:small", output, "--input", "x.npy", "--verify"]) == 0
        assert "2x3x7x9" in capsys.readouterr().out
    assert main(["export", "out.pt2", "again.pt2", "--input", "x.npy"]) == 0
    assert "It has no norm: it was fused before, or never had one." in capsys.readouterr().out


def test_an_input_of_numbers_of_words_has_only_such_in_other_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    numpy = pytest.importorskip("numpy")
    numpy.save("words.npy", numpy.arange(6).reshape(2, 3))
    arguments = ["export", "own_exports:words", "out.pt2", "--input", "words.npy", "--dynamic-axes", "0=batch"]
    assert main(arguments) == 0
    assert "3x3" in capsys.readouterr().out


def test_the_table_says_what_an_exporter_alone_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    assert main(["export", "own_exports:late", "out.onnx", *SHAPE]) == 0
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["model", "nodes", "norms", "exporter", "alone"]
    assert row.split()[4:8] == ["1", "->", "0", "1"], "torch.onnx folds no norm before a convolution"


def test_the_default_shape_is_that_of_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "own_exports:small", "out.pt2"]) == 0
    assert "1x3x224x224" in capsys.readouterr().out
    assert main(["export", "own_exports:small", "out.pt2", "--input-size", "9"]) == 0
    assert "1x3x9x9" in capsys.readouterr().out


def test_a_saved_program_keeps_its_dynamic_axes(small: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    axes = {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("height", min=6, max=20)}
    save(small, "in.pt2", torch.randn(2, 3, 8, 8), dynamic_shapes=(axes,))
    assert main(["export", "in.pt2", "out.pt2", "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "1 -> 0" in printed
    assert "2x3x8x8" in printed
    program = torch.export.load("out.pt2")
    assert not [name for name in operators(program) if "norm" in name]
    x = torch.randn(7, 3, 20, 8)
    assert_equal(run(small, (x,)), run(program.module(), (x,)), rtol=1e-6)


def test_a_saved_program_becomes_onnx(small: nn.Module) -> None:
    pytest.importorskip("onnxscript")
    x = torch.randn(2, 3, 8, 8)
    save(small, "in.pt2", x)
    assert main(["export", "in.pt2", "out.onnx", "--verify"]) == 0
    assert onnx_nodes("out.onnx") == ["Conv", "Relu", "Conv"]
    assert_equal([run(small, (x,))], onnx_outputs("out.onnx", x), rtol=1e-5)


def test_a_program_without_example_inputs_needs_one(
    small: nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numpy = pytest.importorskip("numpy")
    program = torch.export.export(small, (torch.randn(2, 3, 8, 8),))
    program.example_inputs = None
    monkeypatch.setattr(saved_program, "load", lambda _: program)
    assert main(["export", "in.pt2", "out.pt2"]) == 2
    assert "pass --input" in capsys.readouterr().err
    numpy.save("x.npy", torch.randn(2, 3, 8, 8).numpy())
    assert main(["export", "in.pt2", "out.pt2", "--input", "x.npy", "--verify"]) == 0
