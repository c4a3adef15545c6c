"""Norms that are no modules of the model: in plain lists and objects, and in graphs that a graph calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from fxfuse.capture.known_objects import objects_in
from fxfuse.graph.graph import Graph
from fxfuse.modules.lookup import ATOMS, REGISTRIES, fetch, is_norm, paths_below
from fxfuse.operators.roles import AffineSource
from fxfuse.report.decision import Decision
from fxfuse.report.reasons import IN_A_CONTAINER, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fxfuse.capture.captured import Capture


def norms_in_plain_objects(captured: Capture) -> Iterator[Decision]:
    """Yield a decision for every norm in a plain list or object that only code which was not captured calls."""
    kind = type(captured.model).__name__
    for holder, path in captured.paths.items():
        for name, value in holder.__dict__.items():
            if name in REGISTRIES or type(value) in ATOMS:
                continue
            inside = [module for module in objects_in(value) if isinstance(module, nn.Module)]
            apart = [m for top in inside if top not in captured.paths for m in paths_below(top) if is_norm(m)]
            caller = captured.opaque_parent(path) if apart else None
            for number, norm in enumerate(apart if caller is not None else []):
                where, why = f"{path}.{name}[{number}]".lstrip("."), caller or ("", "")
                sentence = Reason.OPAQUE.sentence(value=why[0] or kind, detail=why[1], advice=IN_A_CONTAINER)
                yield Decision("capture", where, type(norm).__name__, (), Reason.OPAQUE, sentence)


def norms_in_other_graphs(captured: Capture) -> Iterator[Decision]:
    """Yield a decision for every norm in a graph that a captured graph calls, and that was not captured itself."""
    known = {(part.region.parent, part.region.call) for part in captured.parts if part.region is not None}
    for number, part in enumerate(captured.parts):
        for node in part.graph_module.graph.find_nodes(op="get_attr"):
            inner = fetch(part.graph_module, str(node.target))
            if not isinstance(inner, fx.GraphModule) or any((number, user.name) in known for user in node.users):
                continue
            for graph in (module for module in inner.modules() if isinstance(module, fx.GraphModule)):
                yield from _norms_of(graph, ", ".join(str(user.target) for user in node.users))


def _norms_of(graph_module: fx.GraphModule, caller: str) -> Iterator[Decision]:
    nodes = Graph(graph_module)
    for node in nodes.nodes:
        row = nodes.row(node)
        if row is not None and issubclass(row.view, AffineSource) and row.view.is_norm:
            facts = {"value": caller, "detail": "it is in a graph that another graph calls", "advice": ""}
            yield Decision("capture", nodes.path(node), row.name, (), Reason.OPAQUE, Reason.OPAQUE.sentence(**facts))
