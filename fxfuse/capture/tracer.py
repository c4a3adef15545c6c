"""A symbolic tracer that leaves whole what it cannot trace, and does not guess a branch."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import inspect
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from fxfuse.capture.branches import ManyWays
from fxfuse.capture.forward_arguments import (
    ANY_VALUE,
    Leaf,
    Listed,
    called_as,
    changes_literals,
    default_of,
    forbids_a_graph,
    has_own_call,
    literals_of,
    resolve_types,
    traced_value,
)
from fxfuse.capture.process import compiled_as_written, one_at_a_time
from fxfuse.capture.proxies import AnyProxy, ConstantProxy, Untraceable
from fxfuse.graph.lazy_graph_module import Draft
from fxfuse.graph.registry import operator_of, row_of
from fxfuse.modules.computed_weights import put_back, with_weights
from fxfuse.modules.derived_class import UNCHECKED
from fxfuse.modules.guards import require_value
from fxfuse.modules.lookup import is_hooked, is_layer_of_torch, shallow_copy, tensor_paths
from fxfuse.modules.mutable_state import State
from fxfuse.modules.origin import is_users
from fxfuse.modules.untraceable_bytecode import asks_what_a_graph_cannot_say
from fxfuse.report.errors import sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class Tracer(ManyWays):
    """Like ``torch.fx.Tracer``, but never all or nothing.

    Where the forward of a submodule cannot be traced, one ``call_module`` node stands for it, and its parents are
    traced on.  What a trace would get silently wrong (state written by a forward, chance, autocast regions) counts
    as untraceable too.

    Attributes:
        left_whole: modules of the user's for which one node stands, and why.
        specialised: the root's arguments that are traced at one value, mostly optional ones at their defaults.
        by_keyword: modules that were traced in a call with keywords, which an identity does not take.
    """

    def __init__(self, passed: Mapping[str, Any] | None = None, wrongly_traced: Collection[nn.Module] = ()) -> None:
        """Trace with some modules left whole from the start.

        Args:
            passed: arguments that the root is known to be called with; those without tensors are constants.
            wrongly_traced: modules of which a trace is known to be wrong.
        """
        super().__init__()
        self.proxy_buffer_attributes = True
        self.passed = passed or {}
        self.left_whole: dict[nn.Module, str] = {}
        self.wrongly_traced = wrongly_traced
        self.specialised: dict[str, Any] = {}
        self.by_keyword: set[nn.Module] = set()
        self._leaves, self._literals, self._cache = dict[nn.Module, bool](), dict[int, Tensor](), {}

    @one_at_a_time
    def capture(self, root: nn.Module) -> Draft:
        """Return the graph of ``root``.

        Raises:
            Exception: whatever the forward of the root itself raises when it is traced.
        """
        self._names = {id(tensor): name for tensor, name in tensor_paths(root)}
        self._require_traceable(root)
        if forbidden := forbids_a_graph(root):
            raise Untraceable(forbidden)
        self.traced_func_name = UNCHECKED if hasattr(type(root), UNCHECKED) else "forward"
        before, names = State(root), set(root.__dict__)
        try:
            with compiled_as_written(), self.computing(root), _weights_of(root):
                graph = self._traced(lambda: self.trace(root))
                self.require_no_failure()
            literals = literals_of(root, names)
            holder = shallow_copy(root)
        finally:
            # torch.fx puts the literal tensors of a forward on the root; they belong to the graph alone.
            try:
                for name in literals_of(root, names):
                    del root.__dict__[name]
            finally:
                changed = before.restore()
        changed = changed or changes_literals(graph, literals)
        if changed:
            raise Untraceable(changed)
        graph._tracer_cls = fx.Tracer  # what pickle needs to read the graph again
        resolve_types(graph, getattr(type(root), self.traced_func_name))
        return Draft(holder, graph, type(root).__name__)

    def _require_traceable(self, module: nn.Module) -> None:
        if module in self.wrongly_traced:
            raise Untraceable("a graph of it would give another result than it does")
        forward = type(module).forward
        if is_users(forward) and (asked := asks_what_a_graph_cannot_say(forward)):
            raise Untraceable(asked)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        """Leave whole the operators of the table, torch's own layers, and modules with hooks."""
        if m not in self._leaves:  # asked several times for each call
            self._leaves[m] = self._is_leaf(m)
        return self._leaves[m]

    def _is_leaf(self, m: nn.Module) -> bool:
        if isinstance(m, torch.jit.ScriptModule):  # which nobody can look into
            return True
        other = isinstance(m, fx.GraphModule) or "forward" in m.__dict__
        return is_hooked(m) or (not other and (operator_of(m) is not None or is_layer_of_torch(m)))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace the module's forward; if that fails, take it back and leave the module whole."""
        if self.is_bystander(args, kwargs) or (m not in (self.submodule_paths or {}) and not is_hooked(m)):
            return forward(*args, **kwargs)  # a module in a plain list is no part of the root: its code is traced
        self.note_catch(sys._getframe(1))
        path = self.path_of_module(m)
        if m not in self.left_whole and not self.is_leaf_module(m, path):
            last, stack = next(iter(reversed(self.graph.nodes)), None), self.module_stack.copy()
            scope = self.scope.module_path, self.scope.module_type
            before = State(m, alone=True)
            outer, self.failure = self.failure, None  # that of the caller is no fault of this module
            try:
                self._require_traceable(m)
                self.by_keyword |= {m} if kwargs else set()
                with _weights_of(m):
                    result = self._traced(lambda: super(Tracer, self).call_module(m, forward, args, kwargs), last)
                self.require_no_failure(before.restore())
            except Exception as error:  # noqa: BLE001 - anything that a user's forward can raise
                self.take_back(last)
                self.module_stack, (self.scope.module_path, self.scope.module_type) = stack, scope
                self.left_whole[m], self.failure = sentence(error), outer
            else:
                self.failure = outer
                return result
        elif operator_of(m) is None and is_hooked(m):
            self.left_whole.setdefault(m, "it has hooks")
        return self._leave_whole(m, path, forward, args, kwargs)

    def _leave_whole(self, m: nn.Module, path: str, forward: Any, args: Any, kwargs: Any) -> Any:
        if operator_of(m) is None and has_own_call(m):
            raise Untraceable(f"it calls {type(m).__name__}, whose __call__ does more than call forward")
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        return self.create_proxy("call_module", path, args, kwargs)

    def _traced(self, run: Callable[[], Any], last: fx.Node | None = None) -> Any:
        """Trace something behind the ``last`` node; where it branches on a value, in every way."""
        outer = vars(self).pop("ways", None)  # questions of this part alone
        try:
            result = run()
            return result if self.ways is None else self.other_ways(run, last, result)
        finally:
            self.ways = outer

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ARG002
        """Return a proxy for a parameter or buffer, whose shape is known; other attributes as they are."""
        self._cache = parameter_proxy_cache
        if not isinstance(attr_val, Tensor) or self.is_bystander():
            return attr_val
        if id(attr_val) not in self._names:  # of a module in a plain list, which is none of the root's
            plain = not isinstance(attr_val, nn.Parameter)
            return attr_val if plain else self._literals.setdefault(id(attr_val), attr_val.detach())
        name = self._names[id(attr_val)]
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy(
                "get_attr", name, (), {}, proxy_factory_fn=lambda node: ConstantProxy(node, self, attr_val)
            )
        return parameter_proxy_cache[name]

    def _proxy_placeholder(self, name: str, concrete_args: Any, sig: Any, fn_for_analysis: Any) -> Any:  # noqa: ARG002
        """Make a placeholder; an optional argument is traced at its default, and checked to be that."""
        plain, default = name.lstrip("*"), default_of(name, sig)
        given = () if name != plain or default is inspect.Parameter.empty else (default,)
        annotation = fn_for_analysis.__annotations__.get(plain) if name == plain else None
        proxy = self.create_proxy("placeholder", name, given, {}, type_expr=annotation)
        value = traced_value(self.passed, name, sig)
        if value is ANY_VALUE:
            return Listed.opened(proxy, self.passed.get(plain), plain)
        self.create_proxy("call_function", require_value, (proxy, value, plain), {})
        self.specialised[plain] = value
        return Leaf(value)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:  # noqa: FBT001
        """Pass constants as they are; torch.fx would take tuples and dictionaries among them apart."""
        plain = inspect.unwrap(root_fn)  # torch.fx would pass the arguments of this one to what is around it
        function, args = super().create_args_for_root(plain, is_module, concrete_args)
        function = function if plain is root_fn else called_as(root_fn, plain)
        function = with_weights(function, self.root) if self.root._forward_pre_hooks else function
        return function, [a.value if isinstance(a, Leaf) else a for a in args]

    def create_arg(self, a: Any) -> Any:
        """Turn an argument into what a node can hold, and keep the class of ordered dictionaries."""
        if type(a) in (AnyProxy, ConstantProxy):  # most are, and torch asks them all sorts of things first
            return a.node
        if type(a) is tuple:
            return tuple(map(self.create_arg, a))
        if type(a) in (int, float, bool, str) or (type(a) is dict and not a):
            return a
        if isinstance(a, nn.Module) and not isinstance(a, fx.GraphModule):
            raise Untraceable(f"it hands a {type(a).__name__} to code that is not traced")
        if isinstance(a, dict) and type(a) is not dict:
            if dataclasses.is_dataclass(type(a)):  # the outputs of transformers are both
                fields: Any = vars(type(a))["__dataclass_fields__"]
                values = {name: self.create_arg(getattr(a, name)) for name in fields}
                return self.create_node("call_function", type(a), (), values)
            if type(a) is not collections.OrderedDict:
                raise Untraceable(f"it makes a {type(a).__name__}, of which a graph cannot keep the class")
            items = [(key, value) for key, value in a.items()]
            return self.create_node("call_function", collections.OrderedDict, (super().create_arg(items),), {})
        return super().create_arg(a)

    def is_layer(self, node: fx.Node) -> bool:
        """Whether a node calls a module that is sure to give a tensor."""
        module = self.root.get_submodule(str(node.target))
        return row_of(module) is not None and not getattr(module, "return_indices", False)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the proxy for a node."""
        return AnyProxy(node, self)


def _weights_of(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Let hooks that compute weights run, and put back what was there."""
    return put_back(module) if module._forward_pre_hooks else contextlib.nullcontext()
