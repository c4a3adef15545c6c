"""The arguments of a forward that is traced, and what is left of them in its graph."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxfuse.capture.proxies import Untraceable
from fxfuse.graph.uses import mutated
from fxfuse.modules.bytecode import steps_of
from fxfuse.modules.computed_weights import computes_weights
from fxfuse.modules.guards import require_count
from fxfuse.modules.origin import is_compiled, wrappers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from dis import Instruction


def resolve_types(graph: fx.Graph, forward: Callable[..., Any]) -> None:
    """Replace annotations that are text by what they mean, as TorchScript needs them; drop what means nothing here."""
    try:
        known = inspect.get_annotations(inspect.unwrap(forward), eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation can be any expression
        known = {}
    for node in graph.nodes:
        if isinstance(node.type, str):
            node.type = known.get("return" if node.op == "output" else str(node.target).lstrip("*"))


def has_own_call(module: nn.Module) -> bool:
    """Whether a class between the module's and torch's defines ``__call__``; that of a compiled module only warns."""
    own = [cls for cls in type(module).__mro__ if cls not in nn.Module.__mro__ and not is_compiled(cls)]
    return any("__call__" in vars(cls) for cls in own)


def forbids_a_graph(root: nn.Module) -> str:
    """Return why no graph of its forward alone can take the place of a module, empty for no reason."""
    if has_own_call(root) and not isinstance(root, fx.GraphModule):
        return "its class has a __call__ of its own"
    if "forward" in root.__dict__:
        return "its forward was replaced on the instance"
    known = not root._forward_pre_hooks or computes_weights(root)
    if not known and any(isinstance(value, Tensor) for value in root.__dict__.values()):
        return "it has hooks, which may compute a tensor of it before each call"
    taken = [name for name, _ in root.named_children() if hasattr(fx.GraphModule, name)]
    if taken:
        return f"its child {taken[0]!r} has the name of a part of a GraphModule"
    return forbids_tracing(type(root).forward)


def literals_of(root: nn.Module, names: Collection[str]) -> list[str]:
    """Return the literal tensors that torch.fx has put on a root since it had only these names."""
    return [name for name in root.__dict__ if name.startswith("_tensor_constant") and name not in names]


def changes_literals(graph: fx.Graph, literals: list[str]) -> str:
    """A literal is made anew in each call; in a graph it would be changed in one call and read in the next."""
    for node in graph.nodes:
        for changed in mutated(node, None):
            if changed.op == "get_attr" and changed.target in literals:
                return "its forward changes a tensor that it makes itself"
    return ""


@dataclasses.dataclass
class Leaf:
    """Hides from torch.fx that an argument is a container."""

    value: Any


class Listed(int):
    """Passed for an argument that is a list, or tuple, of so many tensors."""

    @staticmethod
    def of(value: Any) -> Any:
        """Return this for such a list, and any other value as it is."""
        alike = type(value) in (list, tuple) and value and all(isinstance(item, Tensor) for item in value)
        return Listed(len(value)) if alike else value

    @staticmethod
    def opened(proxy: Any, given: Any, name: str) -> Any:
        """Return the items in place of a proxy for such a list, whose length is checked; nobody writes into them."""
        if not isinstance(given, Listed):
            return proxy
        proxy.tracer.create_proxy("call_function", require_count, (proxy, int(given), name), {})
        return Leaf(tuple(proxy[number] for number in range(given)))


# Passed for an argument of which the value is not known, so that it is traced as one.
ANY_VALUE = object()


def default_of(name: str, signature: inspect.Signature) -> Any:
    """Return the default of an argument, ``inspect.Parameter.empty`` for none; ``*args`` and ``**kwargs`` are empty."""
    parameter = signature.parameters[name.lstrip("*")]
    starred: dict[Any, Any] = {parameter.VAR_POSITIONAL: (), parameter.VAR_KEYWORD: {}}
    return starred.get(parameter.kind, parameter.default)


def traced_value(passed: Mapping[str, Any], name: str, signature: inspect.Signature) -> Any:
    """Return the value at which an argument is traced.

    Args:
        passed: arguments that the forward is known to be called with.
        name: the argument, with its stars.
        signature: that of the forward.

    Returns:
        The default, or what is known to be passed; ANY_VALUE for what can be any tensor.
    """
    plain, empty, default = name.lstrip("*"), inspect.Parameter.empty, default_of(name, signature)
    value = passed.get(plain, default)
    takes_all = name != plain and not any(_is_required(p) for p in list(signature.parameters.values())[1:])
    is_open = value is empty or takes_all or _holds_tensors(value) or (default is empty and not _is_simple(value))
    return ANY_VALUE if is_open else value


def called_as(forward: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a decorated forward, and takes the arguments of the plain one side by side.

    Arguments at their defaults are left out, as in most calls: what is around a forward can tell.
    """
    parameters = inspect.signature(plain).parameters
    code = plain.__code__
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    rest = [name for name, parameter in parameters.items() if parameter.kind in starred]
    names = (*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *rest)

    def call(*values: Any) -> Any:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        given = dict(zip(names, values, strict=True))
        by_name = False
        for name, parameter in parameters.items():
            value = given[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                args += value
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs |= value
            elif value is parameter.default:
                by_name = True
            elif by_name or parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return forward(*args, **kwargs)

    return call


def _is_required(parameter: inspect.Parameter) -> bool:
    positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return positional and parameter.default is parameter.empty


def _holds_tensors(value: Any) -> bool:
    return any(leaf is ANY_VALUE or isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _is_simple(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str))


def takes_required_only(module: nn.Module, positional: int, keywords: Iterable[str]) -> bool:
    """Whether a call with these arguments leaves every optional parameter of ``forward`` at its default."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in _STARRED]
    if asks_what_it_gets(type(module).forward, required):
        return False
    return len(required) == len(parameters) or (positional <= len(required) and set(keywords) <= {*required})


def require_any_call(forward: Callable[..., Any], specialised: Mapping[str, Any]) -> None:
    """Raise unless the graph of a forward holds for every call that untraced code may make.

    Raises:
        Untraceable: naming the argument that was traced at one value, or as a tensor, and may be something else.
    """
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    if specialised:
        raise Untraceable(f"untraced code calls it, and may pass {next(iter(specialised))!r}")
    asked = asks_what_it_gets(forward, [p.name for p in parameters])
    if asked:
        raise Untraceable(f"it asks what {asked!r} is, and untraced code calls it")


def asks_what_it_gets(forward: Callable[..., Any], names: Iterable[str]) -> str:
    """Return an argument of which a forward asks what kind of thing it is, as in ``x is None``; empty for none."""
    wanted = set(names)
    for function in (inspect.unwrap(forward), *wrappers_of(forward)):
        steps = steps_of(function.__code__)
        for number, (step, then) in enumerate(itertools.pairwise(steps)):
            loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            if not step.opname.startswith("LOAD_FAST") or wanted.isdisjoint(loaded):
                continue
            compared = [later.opname for later in steps[number + 2 : number + 3]]
            is_none = "NONE" in then.opname or (then.argval is None and "IS_OP" in compared)
            if is_none or (number and steps[number - 1].argval in ("isinstance", "type")):
                return str(loaded[-1])
    return ""


_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def forbids_tracing(forward: Any) -> str:
    """Return why a decorated forward can tell how it is called, so that a graph holds for some calls; empty if not."""
    if not hasattr(forward, "__wrapped__"):
        return ""
    wrappers = wrappers_of(forward)
    plain = list(inspect.signature(inspect.unwrap(forward)).parameters.values()) if wrappers else []
    for wrapper in wrappers:
        code, steps = wrapper.__code__, steps_of(wrapper.__code__)
        parameters = list(inspect.signature(wrapper, follow_wrapped=False).parameters.values())
        named = [p for p in parameters if p.kind not in _STARRED]
        same = [(p.name, p.default) for p in named[1:]] == [(p.name, p.default) for p in plain[1 : len(named)]]
        texts = {value for value in code.co_consts if isinstance(value, str)}
        rest = {p.name for p in parameters if p.kind in _STARRED}
        if not same or not texts.isdisjoint(p.name for p in plain) or _looks_into(steps, rest):
            return "what is around its forward looks at its arguments"
        if any(step.opname in ("STORE_GLOBAL", "STORE_DEREF") for step in steps):
            return "what is around its forward has a memory"
    return ""


_HANDED_ON = ("CALL", "LIST_", "DICT_", "BUILD_", "LOAD_FAST", "COMPARE", "CONTAINS")
_ASKED_BY_NAME = ("get", "pop", "setdefault")


def _looks_into(steps: list[Instruction], rest: set[str]) -> bool:
    """Whether a function does more with the arguments that it has no names for than to hand them on.

    It may ask for others by their names: ``kwargs.pop("return_dict")``.
    """
    for before, (step, then) in zip([None, *steps], itertools.pairwise(steps), strict=False):
        loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if step.opname.startswith("LOAD_FAST") and loaded[-1] in rest:
            asks = then.opname in ("LOAD_METHOD", "LOAD_ATTR") and then.argval in _ASKED_BY_NAME
            counted = before is not None and before.opname == "LOAD_GLOBAL"
            if counted or not (asks or then.opname.startswith(_HANDED_ON)):
                return True
    return False
