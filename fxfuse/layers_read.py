"""Whether code of the user's reads what a layer notes of itself: its sizes, its weight.

Where the user's code goes on running, it must not find another layer there than before.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING, Any

from fxfuse.python_source import is_name, parse, plain_function

if TYPE_CHECKING:
    from torch import nn

_NOTED = frozenset(
    "weight bias in_channels out_channels in_features out_features num_features kernel_size stride padding dilation "
    "groups padding_mode parameters named_parameters state_dict numel".split()
)
# How methods begin, after underscores, that run before a model is fused, or are of no use on one that is.
_BEFORE = ("init", "reset", "load", "fuse", "reparam", "switch_to_deploy", "repr", "extra_repr")


def reads_layers(model: nn.Module, *, in_forward: bool) -> bool:
    """Whether code of the model's reads what another module notes of itself.

    Args:
        model: the model.
        in_forward: code that runs in the forward; else also public methods and properties beside it.
    """
    classes: set[Any] = {type(module) for module in model.modules()}
    return any(_reads(cls, in_forward) for cls in classes)


@functools.cache
def _reads(cls: Any, in_forward: bool) -> bool:  # noqa: FBT001 - a key of the cache
    members = {name: member for base in reversed(cls.__mro__) if _is_own(base) for name, member in vars(base).items()}
    pending = [name for name in members if name == "forward" or not (in_forward or name.startswith("_"))]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        function = plain_function(members[name]) if name not in seen and not _is_before(name) else None
        seen.add(name)
        if function is None:
            continue
        try:
            tree, own = parse(function)
        except (OSError, TypeError, SyntaxError):
            continue  # without source nobody can say, and nothing is traced through it either
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        if any(node.attr in _NOTED and not is_name(node.value, own) for node in attributes):
            return True
        pending += [node.attr for node in attributes if is_name(node.value, own) and node.attr in members]
    return False


def _is_own(cls: type) -> bool:
    return not cls.__module__.startswith(("torch.", "builtins", "fxfuse."))


def _is_before(method: str) -> bool:
    return method.lstrip("_").startswith(_BEFORE)
