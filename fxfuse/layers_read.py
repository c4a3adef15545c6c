"""Whether code of the user's reads what a layer notes of itself: its sizes, its weight.

Where the user's code goes on running, it must not find another layer there than before.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from fxfuse.python_source import is_name, parse, plain_function

if TYPE_CHECKING:
    from torch import nn

_NOTED = frozenset(
    "weight bias in_channels out_channels in_features out_features num_features kernel_size stride padding dilation "
    "groups padding_mode parameters named_parameters state_dict numel".split()
)
# Methods that run before a model is fused.
_BEFORE = ("__init__", "__repr__", "extra_repr")
_BEFORE_TOO = ("init", "_init", "reset", "_reset", "load", "_load", "fuse", "_fuse", "reparam", "switch_to_deploy")


def reads_layers(model: nn.Module) -> bool:
    """Whether a class of the model's has a method that reads what another module notes of itself."""
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    own = (cls for cls in classes if not cls.__module__.startswith(("torch.", "builtins", "fxfuse.")))
    return any(_reads(cls) for cls in own)


def _reads(cls: type) -> bool:
    for name, member in vars(cls).items():
        function = plain_function(member) if not isinstance(member, type) else None
        if function is None or name in _BEFORE or name.startswith(_BEFORE_TOO):
            continue
        try:
            tree, own = parse(function)
        except (OSError, TypeError, SyntaxError):
            continue  # without source nobody can say, and nothing is traced through it either
        noted = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in _NOTED)
        if any(not is_name(attribute.value, own) for attribute in noted):
            return True
    return False
