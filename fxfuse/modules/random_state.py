"""The state of the random generators."""

from __future__ import annotations

import random
import sys
from typing import Any, NamedTuple

import torch


class Chance(NamedTuple):
    """The state of the generators of torch, on the CPU and on each GPU, of Python, and of NumPy where it is in use."""

    cpu: torch.Tensor
    gpus: tuple[torch.Tensor, ...]
    python: tuple[Any, ...]
    numpy: tuple[Any, ...]


def chance() -> Chance:
    """Return the state of the generators as they are now."""
    numpy = sys.modules.get("numpy")
    drawn = numpy.random.get_state(legacy=True) if numpy is not None else ()
    parts = (drawn[1].tobytes(), drawn[2]) if drawn else ()
    gpu = _gpu()
    states = () if gpu is None else gpu.get_rng_state_all() if _counts_devices(gpu) else (gpu.get_rng_state(),)
    return Chance(torch.get_rng_state(), tuple(states), random.getstate(), parts)


def same_chance(one: Chance, other: Chance) -> bool:
    """Whether nothing was drawn between two states of the generators."""
    same = torch.equal(one.cpu, other.cpu) and (one.python, one.numpy) == (other.python, other.numpy)
    return same and len(one.gpus) == len(other.gpus) and all(map(torch.equal, one.gpus, other.gpus))


def set_chance(state: Chance) -> None:
    """Put the generators back."""
    torch.set_rng_state(state.cpu)
    random.setstate(state.python)
    numpy = sys.modules.get("numpy")
    if numpy is not None and state.numpy:
        words = numpy.frombuffer(state.numpy[0], dtype=numpy.uint32)
        numpy.random.set_state(("MT19937", words, state.numpy[1]))
    gpu = _gpu()
    if gpu is not None and state.gpus:
        _ = gpu.set_rng_state_all(state.gpus) if _counts_devices(gpu) else gpu.set_rng_state(state.gpus[0])


def _gpu() -> Any:
    """Return torch's module for the accelerator, None without one or before it is in use: to ask would start it."""
    device = torch.accelerator.current_accelerator()
    if device is None:
        return None
    module = torch.get_device_module(device)
    in_use = getattr(module, "is_initialized", None)  # Metal has one device, which is always there
    return module if hasattr(module, "get_rng_state") and (in_use is None or in_use()) else None


def _counts_devices(gpu: Any) -> bool:
    return hasattr(gpu, "get_rng_state_all")
