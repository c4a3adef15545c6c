"""The GraphModule that comes back: it keeps what a user would reach for on the model."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.graph import PythonCode

from fxfuse.graph.lazy_graph_module import share
from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.method_bytecode import own_names
from fxfuse.modules.origin import is_torchs
from fxfuse.write_back.copies import renew_parameters
from fxfuse.write_back.saved_graph import SavedGraph, load_graph, save_graph

_HOOKS = tuple(
    "_forward_hooks _forward_hooks_with_kwargs _forward_hooks_always_called _forward_pre_hooks "
    "_forward_pre_hooks_with_kwargs _backward_hooks _backward_pre_hooks _is_full_backward_hook "
    "_state_dict_hooks _state_dict_pre_hooks _load_state_dict_pre_hooks _load_state_dict_post_hooks".split()
)


class FusedGraphModule(fx.GraphModule):
    """A GraphModule with the hooks and plain attributes of the model, and those of its methods that still work."""

    @staticmethod
    def of(draft: fx.GraphModule, name: str) -> FusedGraphModule:
        """Take over the graph that the pass worked on, and what it refers to."""
        result = FusedGraphModule(nn.Module(), fx.Graph(tracer_cls=draft.graph._tracer_cls), name)
        share(draft, result, draft.graph)
        result.graph = draft.graph
        return result

    def recompile(self) -> PythonCode:
        """Generate the code of the graph, but for the empty one that a new module begins with."""
        return super().recompile() if len(self.graph.nodes) else PythonCode("", {}, None)

    def _carry_over(self, model: nn.Module) -> list[str]:
        """Take over hooks, attributes and methods of a model, and return the names of methods that are lost.

        A method is lost if it uses modules or tensors of the model, of which the graph has its own.
        """
        for name in _HOOKS:
            if name in model.__dict__:
                value = model.__dict__[name]
                self.__dict__[name] = value.copy() if isinstance(value, dict) else value
        if model._forward_pre_hooks and computes_weights(model):
            self._forward_pre_hooks.clear()  # the graph begins with what they do
        own = _own_members(type(model))
        constants = {name: vars(cls)[name] for name, cls in own.items() if _is_plain(vars(cls)[name])}
        methods = {name: cls for name, cls in own.items() if name not in constants}
        attributes = {**constants, **model.__dict__}
        attributes = {
            n: v for n, v in attributes.items() if n not in self.__dict__ and not n.startswith("_") and _is_plain(v)
        }
        usable = _usable(methods, set(attributes))
        self.__dict__.update(attributes)
        self.__dict__["_carried"] = {"attributes": attributes, "methods": {name: methods[name] for name in usable}}
        return sorted(name for name in methods if name not in usable and not name.startswith("_"))

    def __getattr__(self, name: str) -> Any:
        """Find methods and properties of the user's class, which pickle would store twice if they were attributes."""
        cls = self.__dict__.get("_carried", {}).get("methods", {}).get(name)
        if cls is None:
            return super().__getattr__(name)
        member = vars(cls)[name]
        # A class method gets the user's class, everything else this module as its self.
        return member.__get__(None, cls) if isinstance(member, classmethod) else member.__get__(self, type(self))

    def _apply(self, fn: Any, recurse: bool = True) -> FusedGraphModule:  # noqa: FBT001, FBT002 - torch's signature
        """Convert or move this model alone: Parameter objects that the argument shares are exchanged first."""
        renew_parameters(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch leaves it without annotations
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedGraphModule:
        """Copy hooks and attributes too, which a plain GraphModule loses."""
        result = super().__deepcopy__(memo)
        assert isinstance(result, FusedGraphModule)  # noqa: S101 - GraphModule copies its own class
        type(result).__name__ = type(self).__name__
        result._take(copy.deepcopy(self._extras(), memo))
        return result

    def __copy__(self) -> FusedGraphModule:
        """Share everything, as a plain GraphModule does."""
        result = FusedGraphModule(self, self.graph, type(self).__name__)
        result._take(self._extras())
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Store the graph as it is, what it refers to, hooks, attributes and the report."""
        extras = self._extras()
        if "_carried" in extras:
            methods = {name: cls for name, cls in self._carried["methods"].items() if _importable(cls)}
            extras["_carried"] = {**self._carried, "methods": methods}
        contents = {name: value for name, value in self.__dict__.items() if name not in extras and name != "_graph"}
        return _restore, (contents, save_graph(self.graph), type(self).__name__, extras)

    def _extras(self) -> dict[str, Any]:
        names = [*_HOOKS, "_carried", "meta", *self.__dict__.get("_carried", {}).get("attributes", {})]
        extras = {name: self.__dict__[name] for name in names if name in self.__dict__}
        # The empty holders of parameters are made anew for every copy.
        return {**extras, "_modes": {path: module.training for path, module in self.named_modules()}}

    def _take(self, extras: dict[str, Any]) -> None:
        modes = extras.pop("_modes")
        self.__dict__.update(extras)
        for path, module in self.named_modules():
            module.training = modes.get(path, module.training)


def _restore(contents: dict[str, Any], graph: SavedGraph, name: str, extras: dict[str, Any]) -> FusedGraphModule:
    root = nn.Module()
    root.__dict__.update(contents)
    result = FusedGraphModule(root, load_graph(graph), name)
    result.training = root.training
    result._take(extras)
    return result


def _is_plain(value: Any, depth: int = 5) -> bool:
    """Whether a value holds no code, and no modules or tensors of the model, which the graph has its own of."""
    if isinstance(value, (nn.Module, Tensor)) or hasattr(type(value), "__get__"):
        return False
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    return all(_is_plain(item, depth - 1) for item in inner) if depth else False


def _own_members(cls: type[nn.Module]) -> dict[str, type]:
    """Return the names that the user's classes define, each with the class that does."""
    found: dict[str, type] = {}
    for base in cls.__mro__:
        if base not in nn.Module.__mro__ and not is_torchs(base):
            for name in vars(base):
                if not hasattr(fx.GraphModule, name):
                    found.setdefault(name, base)
    return found


def _usable(methods: dict[str, type], attributes: set[str]) -> set[str]:
    """Return the methods that use nothing but carried attributes, other usable methods, and the model as a whole."""
    members = {name: vars(cls)[name] for name, cls in methods.items()}
    needs = {name: _needs(m) for name, m in members.items() if not isinstance(m, staticmethod)}
    everywhere = attributes | {"forward", "training", "eval", "train", "parameters", "state_dict"}
    usable = {name for name in members if needs.get(name, set()) is not None}
    while True:
        left = {name for name in usable if (needs.get(name) or set()) <= everywhere | usable}
        if left == usable:
            return usable
        usable = left


def _needs(member: Any) -> set[str] | None:
    """Return the attributes of the model that a method or property uses, None where that cannot be said."""
    if isinstance(member, functools.singledispatchmethod):
        return None
    plain = next((getattr(member, name) for name in ("fget", "func", "__func__") if hasattr(member, name)), member)
    plain = inspect.unwrap(plain)
    return own_names(plain) if inspect.isfunction(plain) else None


def _importable(cls: type) -> bool:
    """Whether pickle can store the class by its name."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls
