"""Hooks of torch's own that compute a weight before each call: weight norm, spectral norm and pruning, as they were.

They look at neither inputs nor outputs.  So a module with such hooks alone is one whose forward begins with them, like
that of a parametrized module: a trace runs them, and what they compute is a constant.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fxfuse.modules.origin import home_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

_HOMES = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm", "torch.nn.utils.prune")
_OTHERS = ("_forward_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks")
_METHODS = ("__call__", "compute_weight", "apply_mask")


def computes_weights(module: nn.Module) -> bool:
    """Whether a module has hooks, and all that they do is to compute its weights from its parameters.

    In training mode spectral norm writes into buffers, so that there it is a hook like any other.

    Example:
        >>> from torch import nn
        >>> from torch.nn.utils import prune
        >>> computes_weights(prune.l1_unstructured(nn.Linear(3, 4), "weight", 0.5).eval())
        True
    """
    own = module.__dict__
    hooks: dict[int, Any] = own.get("_forward_pre_hooks") or {}  # TorchScript has none there
    alone = bool(hooks) and not any(map(own.get, _OTHERS))
    return alone and not module.training and all(map(_is_torchs, hooks.values()))


def with_weights(forward: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    """Return a forward that begins with the hooks of such a module; that of any other module as it is."""

    def call(module: nn.Module, *args: Any) -> Any:
        for hook in module._forward_pre_hooks.values():
            hook(module, args)
        return forward(module, *args)

    return call if computes_weights(module) else forward


def without_hooks(module: nn.Module) -> None:
    """Take the hooks of a copy of such a module away, with the weights that they have left there."""
    for name in computed_weights(module):
        module.__dict__.pop(name)
    module._forward_pre_hooks.clear()


def computed_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return what the hooks of such a module have computed for its last call."""
    hooks: list[Any] = list(module._forward_pre_hooks.values())
    names = [hook._tensor_name if hasattr(hook, "_tensor_name") else hook.name for hook in hooks]
    return {name: module.__dict__[name] for name in names if name in module.__dict__}


@contextlib.contextmanager
def put_back(module: nn.Module) -> Iterator[None]:
    """Let hooks that compute weights run, and put back what was there; does nothing for other modules."""
    before = computed_weights(module) if computes_weights(module) else {}
    try:
        yield
    finally:
        module.__dict__.update(before)


def _is_torchs(hook: Any) -> bool:
    """Whether a hook is one of these, and a class derived from it changes only how a mask is chosen."""
    members = [getattr(type(hook), name) for name in _METHODS if hasattr(type(hook), name)]
    return home_of(type(hook)) in _HOMES or (len(members) > 1 and all(home_of(m) in _HOMES for m in members))
