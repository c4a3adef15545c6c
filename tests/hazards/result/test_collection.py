"""Hazard 29: the collection of garbage is as it was, whatever happens during a pass."""

from __future__ import annotations

import gc

import pytest
from torch import nn

from fxfuse import FuseError, fx_fuse
from tests.hazards.tracing.test_shape_numbers import Raises


@pytest.mark.parametrize("collecting", [True, False])
def test_collection_is_as_it_was(collecting: bool) -> None:
    gc.enable() if collecting else gc.disable()
    try:
        fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval())
        assert gc.isenabled() is collecting
        with pytest.raises(FuseError):
            fx_fuse(Raises(conv=nn.Conv2d(3, 4, 3)), structure="graph")
        assert gc.isenabled() is collecting
    finally:
        gc.enable()
