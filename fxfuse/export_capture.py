"""The forward of a module that cannot be traced, captured by ``torch.export`` from a run on example inputs.

The exported graph is brought back to the level of modules: one ``call_module`` node for each call of a child.  Only
what the source confirms for other inputs too may be folded in it, see ``fxfuse.adjacent``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from fxfuse.adjacent import always_follows
from fxfuse.capture import Part
from fxfuse.draft import Draft
from fxfuse.examples import recorded, untouched
from fxfuse.operator_table import operator_of
from fxfuse.reasons import Reason, Refusal
from fxfuse.shapes import EXAMPLE_SHAPE

if TYPE_CHECKING:
    from fxfuse.capture import Capture
    from fxfuse.examples import Inputs


def add_exported(captured: Capture, inputs: Inputs) -> None:
    """Capture the opaque modules that call layers of the table themselves, at the inputs they get."""
    opaque = [m for m in captured.opaque if any(operator_of(child) is not None for child in m.children())]
    if not opaque:
        return
    calls = recorded(captured.model, opaque, inputs)
    for module in opaque:
        graph_module = _exported(captured.model, module, calls[module][0]) if module in calls else None
        if graph_module is None:
            continue
        part = Part(module, captured.paths[module], graph_module, "captured from the run on the example inputs")
        captured.parts.append(part)
        _keep_unconfirmed(captured, part)


def _exported(model: nn.Module, module: nn.Module, call: Inputs) -> Draft | None:
    call = call.copied()
    try:
        with untouched(model), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, call.args, dict(call.kwargs), strict=False)
            graph = program.module().graph
        return Draft(module, _by_module(graph, module), type(module).__name__)
    except Exception:  # noqa: BLE001 - torch.export raises what it likes; then there is no evidence
        return None


def _by_module(exported: fx.Graph, module: nn.Module) -> fx.Graph:
    """Return a graph with one node for each call of a child; constants are left out."""
    result, values, calls = fx.Graph(), dict[fx.Node, fx.Node](), dict[str, fx.Node]()
    last = _last_of_each_call(exported)
    for node in exported.nodes:
        if node.op == "placeholder":
            values[node] = result.placeholder(node.name)
        elif node.op == "output":
            result.output(fx.node.map_arg(node.args[0], values.get))
        elif node.op in ("call_function", "call_method"):  # not the checks that export adds as a module
            key = _child_call(node)
            if key is None:
                values[node] = _copied(result, node, values)
            else:
                inner = [values[i] for i in node.all_input_nodes if i in values and values[i] is not calls.get(key)]
                if key not in calls:
                    calls[key] = result.call_module(_path(node), ())
                call = calls[key]
                call.args = (*call.args, *(i for i in inner if i not in call.args))
                values[node] = call
                if node is last[key] and operator_of(module.get_submodule(str(call.target))) is not None:
                    call.meta[EXAMPLE_SHAPE] = node.meta["val"].shape
    return result


def _copied(result: fx.Graph, node: fx.Node, values: dict[fx.Node, fx.Node]) -> fx.Node:
    def arg(value: fx.Node) -> Any:
        return values.get(value)

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), arg)
    return result.create_node(node.op, node.target, args, kwargs)


def _stack(node: fx.Node) -> list[tuple[str, tuple[str, Any]]]:
    return list((node.meta.get("nn_module_stack") or {}).items())


def _child_call(node: fx.Node) -> str | None:
    """Return which call of a child a node belongs to, None for the forward's own operations."""
    stack = _stack(node)
    return stack[1][0] if len(stack) > 1 else None


def _path(node: fx.Node) -> str:
    return str(_stack(node)[1][1][0]).partition("@")[0]


def _last_of_each_call(exported: fx.Graph) -> dict[str, fx.Node]:
    return {key: node for node in exported.nodes if (key := _child_call(node)) is not None}


def _keep_unconfirmed(captured: Capture, part: Part) -> None:
    """Keep the layers whose neighbours the source does not confirm, and let those be folded that it does."""
    graph = part.graph_module.graph
    path = part.path or type(part.module).__name__
    why = captured.opaque[part.module]
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        child = part.module.get_submodule(str(node.target))
        before = [i for i in node.all_input_nodes if i.op == "call_module"]
        confirmed = before and all(
            always_follows(part.module, part.module.get_submodule(str(i.target)), child) for i in before
        )
        if confirmed:
            for module in (child, *(part.module.get_submodule(str(i.target)) for i in before)):
                if captured.kept_by.get(module) == {part.module}:
                    captured.kept.pop(module, None)
        elif captured.kept_by.get(child, set()) <= {part.module}:
            captured.kept[child] = Refusal(Reason.BRANCHES, value=path, detail=why)
