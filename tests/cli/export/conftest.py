"""A folder to export into, with models of the user's own in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

OWN_MODELS = """
import torch
from torch import nn
from fxfuse.cli.models import randomize

def trained(model):
    torch.manual_seed(0)
    randomize(model, seed=1)  # other numbers than the command gives to models that nobody trained
    return model.eval()

small_layers = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)))

def small():
    return small_layers

class Shared(nn.Module):  # torch's exporter to ONNX leaves both norms
    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))

def shared():
    return trained(Shared())

late_layers = trained(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)))

def late():
    return late_layers

def words():
    return trained(nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4)))

class FixesTheBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)

class Branches(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1

class NotInOnnx(nn.Module):
    def forward(self, x):
        return torch.linalg.eig(x[:, 0])[0].real
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with models of the user's own, and files that only a success may replace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_exports", raising=False)
    (tmp_path / "own_exports.py").write_text(OWN_MODELS)
    for name in ("old.pt2", "old.onnx"):
        (tmp_path / name).write_bytes(b"old")
    return tmp_path
