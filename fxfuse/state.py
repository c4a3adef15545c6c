"""What a forward can change while it runs, to be put back afterwards."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn


class State:
    """What a forward can write while it is traced: attributes of its module, and the random generators."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = {name: (value, _shallow(value)) for name, value in module.__dict__.items()}
        self.chance = (torch.get_rng_state(), random.getstate())

    def restore(self) -> str:
        """Put everything back, and return what was written, empty for nothing."""
        found = ""
        attributes = self.module.__dict__
        for name in [n for n in attributes if n not in self.attributes]:
            del attributes[name]
            found = f"its forward writes self.{name}"
        for name, (value, content) in self.attributes.items():
            same = name in attributes and attributes[name] is value
            if not same or not _same(value, content):
                found = f"its forward writes self.{name}"
                _refill(value, content)
                attributes[name] = value
        if random.getstate() != self.chance[1] or not torch.equal(torch.get_rng_state(), self.chance[0]):
            torch.set_rng_state(self.chance[0])
            random.setstate(self.chance[1])
            found = "its forward draws random numbers that a graph would repeat"
        return found


def _shallow(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list, set)) else None


def _same(value: Any, content: Any) -> bool:
    if content is None:
        return True
    if isinstance(content, dict):
        return list(map(id, value)) == list(map(id, content)) and all(value[k] is content[k] for k in content)
    return list(map(id, value)) == list(map(id, content))


def _refill(value: Any, content: Any) -> None:
    if isinstance(content, list):
        value[:] = content
    elif content is not None:
        value.clear()
        value.update(content)


def sentence(error: Exception) -> str:
    """Return the first line of an error, short."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
