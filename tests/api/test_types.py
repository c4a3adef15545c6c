"""What a type checker knows of the functions: mypy and pyright read this file as a user's own; running it shows that it
is so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import fx, nn
from torch.export import ExportedProgram

import fxfuse
from fxfuse import FusePass, Report, explain, fx_fuse

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, kind: type) -> None:
        assert isinstance(value, kind)


class Net(nn.Sequential):
    """A class of the user's."""


def net() -> Net:
    return Net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


X = torch.ones(1, 3, 8, 8)


def test_what_comes_back() -> None:
    graph_module = fx.symbolic_trace(net())
    assert_type(fx_fuse(net()), nn.Module)
    assert_type(fx_fuse(net(), X, structure="module"), Net)
    assert_type(fx_fuse(net(), structure="graph", hooks="observe"), fx.GraphModule)
    assert_type(fx_fuse(graph_module, rules=["fold_upstream"]), fx.GraphModule)
    assert_type(fx_fuse(graph_module, inplace=True), fx.GraphModule)
    assert_type(fx_fuse(torch.export.export(net(), (X,)), X), ExportedProgram)
    assert_type(explain(torch.export.export(net(), (X,)), allow_copies=False), Report)


def test_what_is_no_option() -> None:
    """The comments are checked too: mypy tells of one that is not needed."""
    with pytest.raises(TypeError, match="guard"):
        explain(net(), guard=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="guard"):
        FusePass(guard=False)  # type: ignore[call-arg]
    with pytest.raises(fxfuse.FuseError, match="structure='graf' is not known"):
        explain(net(), structure="graf")  # type: ignore[arg-type]


def test_the_package_says_that_it_has_types() -> None:
    assert resources.files("fxfuse").joinpath("py.typed").is_file()


WRONG = """
import torch
from fxfuse import fx_fuse

fx_fuse(torch.nn.Linear(2, 2), guard=False)
number: int = fx_fuse(torch.nn.Linear(2, 2), structure="module").in_features
text: str = fx_fuse(torch.nn.Linear(2, 2), structure="module").in_features
"""


def test_pyright_knows_the_same(tmp_path: Path) -> None:
    """It finds nothing wrong in this file, and what is wrong in another one."""
    pytest.importorskip("pyright")
    shutil.copy(__file__, tmp_path / "right.py")
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "pyrightconfig.json").write_text('{"reportUnnecessaryTypeIgnoreComment": "error"}')
    command = [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--pythonpath", sys.executable]
    paths = (str(Path(fxfuse.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([*command, "--outputjson"], env=environment, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = [(Path(one["file"]).name, one["range"]["start"]["line"]) for one in told]
    assert found == [("wrong.py", 4), ("wrong.py", 6)], done.stdout
