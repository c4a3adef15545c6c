"""The GraphModule that comes back: it keeps what a user would reach for on the model."""

from __future__ import annotations

import copy
import inspect
import types
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch.fx.graph_module import reduce_graph_module

from fxfuse.python_source import mentions

if TYPE_CHECKING:
    from collections.abc import Callable

_HOOKS = tuple(
    "_forward_hooks _forward_hooks_with_kwargs _forward_hooks_always_called _forward_pre_hooks "
    "_forward_pre_hooks_with_kwargs _backward_hooks _backward_pre_hooks _is_full_backward_hook "
    "_state_dict_hooks _state_dict_pre_hooks _load_state_dict_pre_hooks _load_state_dict_post_hooks".split()
)


class FusedGraphModule(fx.GraphModule):
    """A GraphModule with the hooks and plain attributes of the model, and those of its methods that still work."""

    def _keep(self, model: nn.Module) -> list[str]:
        """Take over hooks, attributes and methods of a model.

        Returns:
            The names of public methods that could not be kept, since they use modules or tensors of the model.
        """
        for name in _HOOKS:
            if name in model.__dict__:
                value = model.__dict__[name]
                self.__dict__[name] = value.copy() if isinstance(value, dict) else value
        kept = {n: v for n, v in model.__dict__.items() if n not in self.__dict__ and _is_plain(v)}
        self.__dict__["_kept"] = {"attributes": kept, "methods": {}}
        self.__dict__.update(kept)
        methods = _own_methods(type(model))
        usable = _usable(methods, set(kept))
        self._kept["methods"].update({name: methods[name] for name in usable})
        return sorted(name for name in methods if name not in usable and not name.startswith("_"))

    def __getattr__(self, name: str) -> Any:
        """Find kept methods and properties, which pickle would store twice if they were attributes."""
        method = self.__dict__.get("_kept", {}).get("methods", {}).get(name)
        if isinstance(method, property):
            return method.__get__(self, type(self))
        if method is not None:
            return types.MethodType(method, self)
        return super().__getattr__(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedGraphModule:
        """Copy hooks and attributes too, which a plain GraphModule loses."""
        result = super().__deepcopy__(memo)
        assert isinstance(result, FusedGraphModule)  # noqa: S101 - GraphModule copies its own class
        result._take(copy.deepcopy(self._extras(), memo))
        return result

    def __copy__(self) -> FusedGraphModule:
        """Share everything, as a plain GraphModule does."""
        result = FusedGraphModule(self, self.graph, type(self).__name__)
        result._take(self._extras())
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Store hooks, attributes and the report beside what a plain GraphModule stores."""
        _, (body, imports) = super().__reduce__()
        body = {name: value for name, value in body.items() if name not in self._extras()}
        return _restore, (body, imports, type(self).__name__, self._extras())

    def _extras(self) -> dict[str, Any]:
        names = [*_HOOKS, "_kept", "meta", *self.__dict__.get("_kept", {}).get("attributes", {})]
        return {name: self.__dict__[name] for name in names if name in self.__dict__}

    def _take(self, extras: dict[str, Any]) -> None:
        self.__dict__.update(extras)


def _restore(body: dict[str, Any], imports: str, name: str, extras: dict[str, Any]) -> FusedGraphModule:
    plain = reduce_graph_module({**nn.Module().__dict__, **body}, imports)
    assert isinstance(plain, fx.GraphModule)  # noqa: S101 - that is what it makes
    result = FusedGraphModule(plain, plain.graph, name)
    result.training = plain.training
    result._take(extras)
    return result


def _is_plain(value: Any) -> bool:
    """Whether a value holds no modules or tensors of the model, which the graph has its own of."""
    if isinstance(value, (nn.Module, Tensor, types.MethodType)):
        return False
    if isinstance(value, (list, tuple, set)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    return True


def _own_methods(cls: type[nn.Module]) -> dict[str, Callable[..., Any] | property]:
    """Return the methods and properties that the user's classes define, by name."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in nn.Module.__mro__ or base.__module__.startswith("torch.nn."):
            continue
        for name, value in vars(base).items():
            if (inspect.isfunction(value) or isinstance(value, property)) and not hasattr(fx.GraphModule, name):
                found.setdefault(name, value)
    return found


def _usable(methods: dict[str, Any], attributes: set[str]) -> set[str]:
    """Return the methods that use nothing but kept attributes, other usable methods, and the model as a whole."""
    needs = {name: found for name, method in methods.items() if (found := mentions(method)) is not None}
    everywhere = attributes | {"forward", "training", "eval", "train", "parameters", "state_dict"}
    usable = set(needs)
    while True:
        left = {name for name in usable if needs[name] <= everywhere | usable}
        if left == usable:
            return usable
        usable = left
