"""``logging.getLogger("fxfuse")`` says what was captured how, and how long each stage took."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.support.helpers import Model, trained, values

if TYPE_CHECKING:
    import pytest


class Branches(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.sum() > 0 else self.block(-x)


def test_stages_and_what_was_not_traced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fxfuse")
    fx_fuse(trained(Branches(block=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))), values(2, 3, 6, 6))
    told = [re.sub(r" in \d+\.\d{3} s$", "", message) for message in caplog.messages]
    assert told[:2] == ["run on the example inputs", "Branches: captured"]
    assert "graphs: 1, of 4 nodes; modules that run as they are: 1" in told
    assert any(message.startswith("not traced: Branches (") for message in told)
    assert "watched on the example inputs" in told
    assert told[-3:] == ["rules applied", "written back", "compared on the example inputs"]


def test_nothing_is_said_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    fx_fuse(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    assert capfd.readouterr() == ("", "")
