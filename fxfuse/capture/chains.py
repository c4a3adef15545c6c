"""Layers that a forward which cannot be traced calls one directly after another: a graph of those alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torch import fx

from fxfuse.capture.capture import READ, Part
from fxfuse.graph.lazy_graph_module import Draft
from fxfuse.report.reasons import Reason
from fxfuse.source.adjacent_layers import chains

if TYPE_CHECKING:
    from fxfuse.capture.capture import Capture


def add_chains(captured: Capture) -> None:
    """Let layers fold that untraced code always calls on each other's results, as its source says."""
    held = Counter(child for module in captured.model.modules() for child in module._modules.values())
    elsewhere = {child for child, count in held.items() if count > 1}
    looked_into = {module for module, refusal in captured.kept.items() if refusal.reason is Reason.HOOKED}
    for module, read in captured.read.items():
        path = captured.paths[module]
        kept = elsewhere | looked_into | (set(module.modules()) if read.unknown else read.kept)
        found = [chain for chain in chains(module, read.entries) if kept.isdisjoint(map(module.get_submodule, chain))]
        if not found:
            continue
        graph = Draft(module, _graph(found), type(module).__name__)
        captured.parts.append(Part(module, path, graph, READ))
        for child in {module.get_submodule(name) for chain in found for name in chain}:
            if captured.kept_by.get(child) == {module}:
                captured.kept.pop(child, None)


def _graph(found: list[list[str]]) -> fx.Graph:
    graph, results = fx.Graph(), list[fx.Node]()
    values = [graph.placeholder(f"input_{number}") for number in range(len(found))]
    for value, chain in zip(values, found, strict=True):
        last = value
        for name in chain:
            last = graph.call_module(name, (last,))
        results.append(last)
    graph.output(tuple(results))
    return graph
