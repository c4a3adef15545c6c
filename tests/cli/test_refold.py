"""``fxfuse refold``, and ``--weights`` of the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fxfuse import Report, fx_fuse
from fxfuse.cli import explain, models
from fxfuse.cli.main import main
from tests.checkpoints.models import other
from tests.cli.test_main import QUICK, folder

__all__ = ["folder"]  # a fixture that every test here uses too


@pytest.fixture
def saved() -> dict[str, torch.Tensor]:
    """A plan and new weights as files; what fusing again gives."""
    model, _ = models.prepared("", models.find("own_models:small"))
    Report.of(fx_fuse(model)).plan.save("plan.json")
    retrained = other(model, 1)
    torch.save(retrained.state_dict(), "new.pt")
    return fx_fuse(retrained).state_dict()


@pytest.mark.parametrize("output", ["out.pt", "out.safetensors"])
def test_new_weights_go_from_file_to_file(saved: dict[str, torch.Tensor], output: str, capsys: Any) -> None:
    if output.endswith(".safetensors"):
        load: Any = pytest.importorskip("safetensors.torch").load_file
    else:
        load = torch.load
    assert main(["refold", "plan.json", "new.pt", output]) == 0
    assert capsys.readouterr().out == f"{len(saved)} tensors written to {output}\n"
    given = load(output)
    assert given.keys() == saved.keys()
    assert all(torch.equal(tensor, given[name]) for name, tensor in saved.items())


def test_wrong_weights_leave_the_output_as_it_was(saved: dict[str, torch.Tensor], capsys: Any) -> None:
    torch.save(saved, "fused.pt")
    Path("out.pt").write_text("old")
    assert main(["refold", "plan.json", "fused.pt", "out.pt"]) == 2
    assert "These are weights of the fused model" in capsys.readouterr().err
    assert main(["refold", "plan.json", "none.pt", "out.pt"]) == 2
    assert 'There is no file "none.pt"' in capsys.readouterr().err
    assert Path("out.pt").read_text() == "old"


def test_commands_load_weights(saved: dict[str, torch.Tensor], capsys: Any) -> None:
    del saved
    assert main(["explain", "own_models:small", "--weights", "new.pt"]) == 0
    assert explain.RANDOM not in capsys.readouterr().out
    assert main(["bench", "own_models:small", *QUICK, "--weights", "new.pt"]) == 0
    capsys.readouterr()
    assert main(["bench", "own_models:small", "own_models:half", *QUICK, "--weights", "new.pt"]) == 2
    assert "--weights are those of one model, and there are 2" in capsys.readouterr().err
    torch.save({"0.weight": torch.ones(1)}, "wrong.pt")
    assert main(["explain", "own_models:small", "--weights", "wrong.pt"]) == 2
    assert '"wrong.pt" holds no weights of own_models:small' in capsys.readouterr().err


def test_export_says_whether_weights_are_random(saved: dict[str, torch.Tensor], capsys: Any) -> None:
    del saved
    arguments = ["export", "own_models:small", "out.pt2", "--input-size", "8"]
    assert main(arguments) == 0
    assert "Its weights are random; --weights FILE loads trained ones." in capsys.readouterr().out
    assert main([*arguments, "--weights", "new.pt"]) == 0
    assert "random" not in capsys.readouterr().out
