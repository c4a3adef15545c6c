"""Whose code something is: torch's, the user's, or neither; and what the compiler made of it."""

from __future__ import annotations

import inspect
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

NOT_USERS = sys.stdlib_module_names | {"torch", "builtins", "numpy", "fxfuse"}


def home_of(value: Any) -> str:
    """Return the name of the Python module that a function, class or Python module is of; of an object, its class's.

    Example:
        >>> import torch
        >>> home_of(torch.nn.ReLU())
        'torch.nn.modules.activation'
    """
    if isinstance(value, ModuleType):
        return value.__name__
    named = isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType))  # others may answer anything
    home = getattr(value if named else type(value), "__module__", None)
    return home if isinstance(home, str) else "builtins"


def package_of(value: Any) -> str:
    """Return the first part of ``home_of(value)``: ``torch``, and not ``torchvision``, for what is torch's."""
    return home_of(value).partition(".")[0]


def is_torchs(value: Any) -> bool:
    """Whether a function, a class, a Python module, or the class of an object is one of torch's.

    Example:
        >>> import torch
        >>> is_torchs(torch.nn.ReLU()), is_torchs(torch.relu), is_torchs(print)
        (True, True, False)
    """
    return package_of(value) == "torch"


def is_users(value: Any) -> bool:
    """Whether a function, a class, a Python module, or the class of an object is neither torch's nor Python's own.

    Example:
        >>> import torch
        >>> is_users(torch.nn.ReLU()), is_users(len), is_users(type("Net", (), {"__module__": "torch_nets"}))
        (False, False, True)
    """
    return package_of(value) not in NOT_USERS


def is_torchs_layer(value: Any) -> bool:
    """Whether a module or class is one of the layers in ``torch.nn`` or their quantized forms."""
    return home_of(value).startswith(("torch.nn.modules.", "torch.ao.nn."))


def is_compiled(value: Any) -> bool:
    """Whether a module, or a class, is what ``torch.compile`` puts around a module."""
    return home_of(value).startswith("torch._dynamo.")


def as_written(value: Any) -> Any:
    """Return the function that was compiled into a value, None for anything else."""
    compiled = type(value) is FunctionType and not hasattr(value, "_torchdynamo_disable")
    return value.__dict__.get("_torchdynamo_orig_callable") if compiled else None


def runs_compiled(module: nn.Module) -> bool:
    """Whether a call of a module, or of a function in one of its attributes, runs what is compiled."""
    return any(as_written(value) is not None for value in module.__dict__.values())


def wrappers_of(forward: Any) -> list[Any]:
    """Return the functions around a decorated one, the outermost first; torch's own do nothing but call it."""
    found = []
    while inspect.isfunction(forward) and hasattr(forward, "__wrapped__"):
        found += [] if is_torchs(forward) else [forward]
        forward = forward.__wrapped__
    return found
