"""The ways in which a pass is started, each with what has to be as before where it fails."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import random
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fxfuse import FusePass, Report, fuse_graph, fx_fuse
from fxfuse.capture.lifted import inputs_as_attributes
from fxfuse.frontends.backend import Compiled, fxfuse
from tests.faults.models import IMAGE, RULES, everything, parts
from tests.support.graph_forms import untouched
from tests.support.helpers import leaves, run, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

importlib.import_module("sympy")  # torch imports it when an interpreter fails, and it adds a filter for warnings


@dataclass(frozen=True)
class Form:
    """A way to start a pass.

    Attributes:
        make: makes the argument, the same every time.
        fuse: the pass.
        inplace: whether it changes its argument where nothing fails.
    """

    make: Callable[[], Any]
    fuse: Callable[[Any], Any]
    inplace: bool = False


def _inputs() -> Tensor:
    return torch.linspace(-2, 3, 384, dtype=torch.float64).reshape(IMAGE)


def _traced() -> fx.GraphModule:
    graph_module = fx.symbolic_trace(everything())
    graph_module.meta["mine"] = [1]
    graph_module.register_forward_hook(lambda _module, _args, output: output + 1)
    for number, node in enumerate(graph_module.graph.nodes):
        node.meta["mine"] = [number]
    return graph_module


@functools.cache
def _program() -> ExportedProgram:
    return torch.export.export(everything(), (_inputs(),))


@functools.cache
def _captured() -> tuple[fx.GraphModule, list[Any]]:
    found: list[Any] = []

    def backend(graph_module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        found.append((graph_module, list(inputs)))
        return graph_module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(everything(), backend=backend, fullgraph=True)(_inputs())
    (captured,) = found
    return captured


def _of_dynamo() -> tuple[fx.GraphModule, list[Any]]:
    """What Dynamo hands to a backend: a graph, and what it is called with."""
    graph_module, inputs = _captured()
    return fx.GraphModule(graph_module, inputs_as_attributes(graph_module.graph, {})), inputs


def _constants(captured: tuple[fx.GraphModule, list[Any]]) -> dict[str, Tensor]:
    names = [node.name for node in captured[0].graph.nodes if node.op == "placeholder"]
    return {n: v for n, v in zip(names, captured[1], strict=True) if v.shape != IMAGE}


def _compile(captured: tuple[fx.GraphModule, list[Any]]) -> Callable[..., Any]:
    options = {"backend": lambda graph_module, _inputs: graph_module.forward, "rules": RULES}
    with torch.no_grad():
        return fxfuse(*captured, options=options)


def _pass(graph_module: fx.GraphModule) -> Any:
    fuse = FusePass(rules=RULES, hooks="observe")
    fuse.call(graph_module)
    if fuse.error is not None:
        raise fuse.error
    return graph_module


FORMS: Mapping[str, Form] = {
    "graph": Form(everything, lambda model: fx_fuse(model, rules=RULES, structure="graph")),
    "module": Form(everything, lambda model: fx_fuse(model, rules=RULES, structure="module")),
    "parts": Form(parts, lambda model: fx_fuse(model, rules=RULES)),
    "parts, with inputs": Form(parts, lambda model: fx_fuse(model, _inputs(), rules=RULES)),
    "in place": Form(
        _traced, lambda graph: fx_fuse(graph, _inputs(), rules=RULES, inplace=True, hooks="observe"), inplace=True
    ),
    "fuse_graph": Form(
        _traced, lambda graph: (fuse_graph(graph, rules=RULES, hooks="observe"), graph)[1], inplace=True
    ),
    "fuse_graph, with constants": Form(
        _of_dynamo, lambda given: (fuse_graph(given[0], _constants(given), rules=RULES), given)[1], inplace=True
    ),
    "FusePass": Form(_traced, _pass, inplace=True),
    "program": Form(_program, lambda program: fx_fuse(program, rules=RULES)),
    "program, with inputs": Form(_program, lambda program: fx_fuse(program, _inputs(), rules=RULES)),
    "backend": Form(_of_dynamo, _compile),
}


def outputs(argument: Any, result: Any) -> list[Any]:
    """What a result gives, or the argument itself."""
    if not isinstance(argument, tuple):
        return leaves(run(result.module() if isinstance(result, ExportedProgram) else result, (_inputs(),)))
    with torch.no_grad():
        return leaves((result[0] if isinstance(result, tuple) else result)(*argument[1]))


def described(result: Any) -> list[Any]:
    """A result in words and numbers, by which two results can be compared."""
    if isinstance(result, ExportedProgram):
        return [str(result.graph), _numbers(result.state_dict), Report.of(result).to_dict()]
    if isinstance(result, Compiled):
        return [str(result.plan)]
    result = result[0] if isinstance(result, tuple) else result
    text = str(result.graph) if isinstance(result, fx.GraphModule) else str(result)
    return [text, _numbers(result.state_dict()), Report.of(result).to_dict()]


def _numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (tensor.dtype, tensor.tolist()) for name, tensor in state.items()}


@contextlib.contextmanager
def as_before(argument: Any) -> Iterator[None]:
    """Inside of the block nothing about the argument changes, and nothing around the pass."""
    around, graphs = _ambient(), _graphs(argument)
    with contextlib.ExitStack() as stack:
        if isinstance(argument, ExportedProgram):
            stack.enter_context(untouched(argument))
        else:
            stack.enter_context(unchanged(argument[0] if isinstance(argument, tuple) else argument))
        for tensor in argument[1] if isinstance(argument, tuple) else ():
            stack.enter_context(unchanged(_Holder(tensor)))
        yield
    assert _graphs(argument) == graphs
    assert _ambient() == around


class _Holder(nn.Module):
    """Holds an input of a graph."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.__dict__["tensor"] = tensor


def _graphs(argument: Any) -> list[Any]:
    """Every graph of an argument, and every node, by identity and by what is written in it."""
    root = argument[0] if isinstance(argument, tuple) else argument
    root = root.graph_module if isinstance(root, ExportedProgram) else root
    modules = [module for module in root.modules() if isinstance(module, fx.GraphModule)]
    return [
        (id(m), id(m.graph), id(m.graph.owning_module), id(type(m).forward.__code__), list(map(_node, m.graph.nodes)))
        for m in modules
    ]


def _node(node: fx.Node) -> Any:
    meta = {key: (id(value), str(value)) for key, value in node.meta.items()}
    users = [id(user) for user in node.users]
    return (id(node), node.op, node.name, node.target, str(node.args), str(node.kwargs), users, id(node.meta), meta)


def _ambient() -> list[Any]:
    """What a pass exchanges for a while, of Python and of torch."""
    norms = [vars(cls)["_check_input_dim"] for cls in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)]
    module = [vars(nn.Module)[name] for name in ("__call__", "__getattr__")]
    return [
        *(gc.isenabled(), torch.is_grad_enabled(), torch.get_rng_state().tolist(), random.getstate()),
        *(norms, module, torch.autocast.__enter__, max, min, list(warnings.filters), warnings.showwarning),
    ]
