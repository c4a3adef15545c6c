"""What a forward can change while it runs, to be put back afterwards."""

from __future__ import annotations

import collections
import operator
import random
import sys
from typing import Any, NamedTuple

import torch
from torch import nn

from fxfuse.modules.lookup import ATOMS, paths_below
from fxfuse.modules.origin import is_torchs

_DEPTH = 4  # of containers in containers
_FIXED = ATOMS - {torch.Tensor, nn.Parameter}
_CONTAINERS = (dict, list, set, collections.deque)


class State:
    """What a forward can write: attributes of the modules below, what these hold, and the random generators."""

    def __init__(self, root: nn.Module, *, alone: bool = False, runs: bool = False) -> None:
        """Remember everything as it is.

        Args:
            root: the module.
            alone: remember the attributes of this module only: neither those of others, nor the random generators.
            runs: remember the values of tensors that are plain attributes too, since the forward is to run.
        """
        self.holders: dict[int, tuple[Any, Any, str]] = {}
        self.empty: list[tuple[Any, nn.Module, str]] = []  # registries of hooks, most of them: a dozen a module
        self.generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self.tensors: dict[int, tuple[torch.Tensor, torch.Tensor, str]] | None = {} if runs else None
        found = [root] if alone else paths_below(root)
        # A scripted module lives in C++, and keeps what it writes there.
        modules = [module for module in found if not isinstance(module, torch.jit.ScriptModule)]
        for module in modules:
            self._remember_module(module)
        classes = set() if alone else {type(module) for module in modules}
        self.classes = {cls: dict(vars(cls)) for cls in {c for known in classes for c in _own_classes(known)}}
        self.random = None if alone else RandomState.now()

    def _remember_module(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):  # its state is TorchScript's own
            return
        attributes, name = module.__dict__, type(module).__name__
        content = attributes.copy()
        self.holders[id(attributes)] = (attributes, content, name)
        for key, value in content.items():
            if type(value) in _FIXED:
                continue
            if isinstance(value, _CONTAINERS) and not value:
                self.empty.append((value, module, key))
            elif key in ("_parameters", "_buffers", "_modules"):
                self.holders[id(value)] = (value, value.copy(), f"{name}.{key}")
            else:
                self._remember(value, f"{name}.{key}", _DEPTH - 1)

    def _remember(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, torch.Tensor) and self.tensors is not None and not value.is_meta:
            self.tensors[id(value)] = value, value.detach().clone(), name
        if type(value) in ATOMS or isinstance(value, (nn.Module, torch.Tensor)):
            return
        if isinstance(value, torch.Generator):
            self.generators.append((value, value.get_state()))
        # A class that derives from a container holds what it contains.
        value = vars(value) if _is_plain_object(value) and not isinstance(value, _CONTAINERS) else value
        if not isinstance(value, _CONTAINERS) or id(value) in self.holders or not depth:
            return
        self.holders[id(value)] = (value, value.copy(), name)
        for key, inner in list(value.items()) if isinstance(value, dict) else [("", item) for item in value]:
            self._remember(inner, f"{name}.{key}" if key else name, depth - 1)

    def restore(self) -> str:
        """Put everything back, and return what was written, empty for nothing."""
        found = ""
        for value, module, key in self.empty:
            if value:
                found = f"its forward writes into {type(module).__name__}.{key}"
                value.clear()
        for value, content, name in self.holders.values():
            if not _same(value, content):
                found = f"its forward writes into {name}"
                _refill(value, content)
        for tensor, before, name in (self.tensors or {}).values():
            if not unwritten(tensor, before):
                found = f"its forward writes into {name}"
                with torch.no_grad():
                    tensor.copy_(before)
        for cls, members in self.classes.items():
            found = _restore_class(cls, members) or found
        return "its forward draws random numbers that a graph would repeat" if self._put_generators_back() else found

    def _put_generators_back(self) -> bool:
        """Put the random generators back, and return whether anything was drawn."""
        drawn = False
        for generator, before in self.generators:
            drawn = drawn or not torch.equal(generator.get_state(), before)
            generator.set_state(before)
        if self.random is not None and not self.random.is_same(RandomState.now()):
            self.random.put_back()
            return True
        return drawn


def unwritten(tensor: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether a tensor holds what it held; NaN differs from itself, and nothing is to be written without need."""
    return torch.equal(tensor, before) or (
        tensor.shape == before.shape
        and tensor.is_floating_point()
        and bool(((tensor == before) | (tensor.isnan() & before.isnan())).all())
    )


def _own_classes(cls: type) -> list[type]:
    return [c for c in cls.__mro__ if not is_torchs(c) and c is not object]


def _restore_class(cls: type, members: dict[str, Any]) -> str:
    changed = [name for name, value in vars(cls).items() if name not in members or members[name] is not value]
    changed = [name for name in changed if not name.startswith(("__", "_abc"))]
    for name in changed:
        if name in members:
            setattr(cls, name, members[name])
        else:
            delattr(cls, name)
    return f"its forward writes {cls.__name__}.{changed[0]}" if changed else ""


def _is_plain_object(value: Any) -> bool:
    """Whether a value is an object of the user's that holds others, such as a SimpleNamespace."""
    plain = hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module, torch.Tensor))
    return plain and not callable(value) and not is_torchs(type(value))


def _same(value: Any, content: Any) -> bool:
    """Whether a container holds the very objects that it held, in their order."""
    if isinstance(content, set):  # has no order, and a copy may have another
        return set(map(id, value)) == set(map(id, content))
    if len(value) != len(content) or not all(map(operator.is_, value, content)):
        return False
    return not isinstance(content, dict) or all(map(operator.is_, value.values(), content.values()))


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(content, (list, collections.deque)):
        value.extend(content)
    else:
        value.update(content)


class RandomState(NamedTuple):
    """The state of the generators of torch, on the CPU and on each GPU, of Python, and of NumPy where it is in use."""

    cpu: torch.Tensor
    gpus: tuple[torch.Tensor, ...]
    python: tuple[Any, ...]
    numpy: tuple[Any, ...]

    @staticmethod
    def now() -> RandomState:
        """Return the state of the generators as they are now."""
        numpy = sys.modules.get("numpy")
        drawn = numpy.random.get_state(legacy=True) if numpy is not None else ()
        gpu = _gpu()
        states = () if gpu is None else gpu.get_rng_state_all() if _counts_devices(gpu) else (gpu.get_rng_state(),)
        words = (drawn[1].tobytes(), drawn[2]) if drawn else ()
        return RandomState(torch.get_rng_state(), tuple(states), random.getstate(), words)

    def is_same(self, other: RandomState) -> bool:
        """Whether nothing was drawn between two states."""
        same = torch.equal(self.cpu, other.cpu) and (self.python, self.numpy) == (other.python, other.numpy)
        return same and len(self.gpus) == len(other.gpus) and all(map(torch.equal, self.gpus, other.gpus))

    def put_back(self) -> None:
        """Give the generators this state."""
        torch.set_rng_state(self.cpu)
        random.setstate(self.python)
        numpy = sys.modules.get("numpy")
        if numpy is not None and self.numpy:
            words = numpy.frombuffer(self.numpy[0], dtype=numpy.uint32)
            numpy.random.set_state(("MT19937", words, self.numpy[1]))
        gpu = _gpu()
        if gpu is not None and self.gpus:
            if _counts_devices(gpu):
                gpu.set_rng_state_all(self.gpus)
            else:
                gpu.set_rng_state(self.gpus[0])


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
