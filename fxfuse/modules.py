"""Copies of modules that share everything but what is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module of the same class that shares every tensor, child and attribute, and can be changed."""
    copied = module.__new__(type(module))
    copied.__dict__ = {
        name: value.copy() if isinstance(value, dict) and name.startswith("_") else value
        for name, value in module.__dict__.items()
    }
    return copied
