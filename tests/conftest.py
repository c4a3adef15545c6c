"""Fixtures of all tests: every test starts from the same random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tests.helpers import Structure


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["graph", "module"])
def structure(request: pytest.FixtureRequest) -> Structure:
    """Both kinds of object that can come back."""
    chosen: Any = request.param
    return chosen
