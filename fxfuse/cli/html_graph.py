"""One captured graph as rows of a drawing: each node before beside the same node after, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import fx, nn

from fxfuse.cli.html_lanes import lanes
from fxfuse.graph.nodes import name_of_target
from fxfuse.graph.plan import Merge
from fxfuse.modules.origin import is_torchs_layer

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from fxfuse.edit.editor import Editor
    from fxfuse.graph.plan import Plan
    from fxfuse.report.decision import Decision

    Graph: TypeAlias = Mapping[fx.Node, Sequence[fx.Node]]  # calls, with what they read

# What can have become of a node -> what the legend says of it.
STATES = {
    "folded": "folded: its arithmetic is in the weights of another layer",
    "merged": "merged: it is one layer with others",
    "changed": "took something in: a layer with new weights",
    "left": "left: the reason is told",
    "dropped": "taken out: it did nothing, or nothing reads its result any more",
    "added": "added: a check, or a part of what a merged layer gives",
    "kept": "untouched",
}


@dataclass
class Outcome:
    """What became of a node.

    Attributes:
        state: one of ``STATES``.
        into: the paths of what absorbed it.
        absorbed: the paths of what it absorbed.
        decisions: the numbers of the decisions about it.
    """

    state: str = "kept"
    into: dict[str, None] = field(default_factory=dict)
    absorbed: dict[str, None] = field(default_factory=dict)
    decisions: dict[int, None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; what is empty is left out."""
        told: dict[str, dict[Any, None]] = {"into": self.into, "absorbed": self.absorbed, "decisions": self.decisions}
        return {"state": self.state, **{name: list(values) for name, values in told.items() if values}}


def rows_of(editor: Editor, decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Return the rows of a graph that was edited, as plain data.

    Args:
        editor: the graph after, and what it remembers of the graph before.
        decisions: all decisions about the model, with their nodes.
    """
    before: Graph = {node: origin.inputs for node, origin in editor.origin.items() if node.op != "get_attr"}
    after: Graph = {n: n.all_input_nodes for n in editor.graph_module.graph.nodes if n.op != "get_attr"}
    order = _aligned(list(before), list(after))
    outcomes = _outcomes(editor, decisions, order)
    drawn = [_lines(order, before), _lines(order, after)]
    rows: list[dict[str, Any]] = []
    for number, node in enumerate(order):
        row: dict[str, Any] = {"path": editor.path(node), "group": _group(editor, node), **outcomes[node].to_dict()}
        row["module"] = node.op == "call_module"
        row["lanes"] = [lines[number] for lines in drawn]
        row["inputs"] = [_rows_read(order, inputs.get(node, ())) for inputs in (before, after)]
        row["before"] = _cell(editor, node, editor.origin[node].target, before[node]) if node in before else None
        row["after"] = _cell(editor, node, node.target, after[node], new=True) if node in after else None
        rows.append(row)
    return rows


def _aligned(before: list[fx.Node], after: list[fx.Node]) -> dict[fx.Node, int]:
    """Return the number of the row of every node, the same before and after: an edit never moves a node."""
    known, order = set(after), list[fx.Node]()
    places = {node: place for place, node in enumerate(before)}
    done = 0
    for node in after:
        upto = places.get(node, -1)
        order += [gone for gone in before[done:upto] if gone not in known] if upto >= done else []
        done = max(done, upto)
        order.append(node)
    order += [gone for gone in before[done:] if gone not in known]
    return {node: row for row, node in enumerate(order)}


def _rows_read(order: Mapping[fx.Node, int], inputs: Iterable[fx.Node]) -> list[int]:
    """Return the rows of the values that a node reads; constants have none."""
    return [order[node] for node in inputs if node in order]


def _lines(order: Mapping[fx.Node, int], graph: Graph) -> list[Any]:
    """Return the lines of each row."""
    inputs = {row: _rows_read(order, graph[node]) for node, row in order.items() if node in graph}
    return [list(lines) for lines in lanes(len(order), inputs)]


# -- what became of the nodes


def _outcomes(editor: Editor, decisions: Sequence[Decision], nodes: Iterable[fx.Node]) -> dict[fx.Node, Outcome]:
    alive = set(editor.graph_module.graph.nodes)
    outcomes = {node: Outcome(_untold(editor, node, alive)) for node in nodes}
    for plan in editor.plans:
        _tell_plan(editor, plan, outcomes)
    for number, decision in enumerate(decisions):
        for outcome in (outcomes[node] for node in decision.nodes if node in outcomes):
            if not decision.folded:
                if outcome.state not in ("kept", "changed", "left"):
                    continue  # a part of it went, and the rest could not
                outcome.state = "left"
            outcome.decisions[number] = None
    return outcomes


def _untold(editor: Editor, node: fx.Node, alive: Container[fx.Node]) -> str:
    """Return what became of a node of which no decision tells."""
    if node not in editor.origin:
        return "added"
    if node not in alive:
        return "dropped"
    return "changed" if node in editor.writes else "kept"


def _tell_plan(editor: Editor, plan: Plan, outcomes: Mapping[fx.Node, Outcome]) -> None:
    """Note what a plan did to each node; where nothing takes anything in, something was only taken out."""
    into = tuple(map(editor.path, plan.hosts))
    merged = isinstance(plan, Merge)
    gone = [*plan.removed, *(node for node, _ in plan.bypass), *plan.dropped] if merged else plan.removed
    for outcome in (outcomes[node] for node in gone if into and node in outcomes):
        outcome.state = "merged" if merged else "folded"
        outcome.into |= dict.fromkeys(into)
    for host in (host for host in plan.hosts if host in outcomes):
        outcomes[host].absorbed |= {editor.path(node): None for node in plan.removed if node is not host}


# -- what is written in a row


def _group(editor: Editor, node: fx.Node) -> list[str]:
    """Return the parts of the path of the module in whose forward a node stands, or that holds what it calls."""
    origin = editor.origin.get(node)
    if origin is None:
        inside = editor.graph.owner(node)
    else:
        inside = origin.owner if origin.module is None else str(origin.target).rpartition(".")[0]
    return inside.split(".") if inside else []


def _cell(editor: Editor, node: fx.Node, target: Any, inputs: Iterable[fx.Node], *, new: bool = False) -> Any:
    """Return the name, the class and the settings of what a node calls."""
    module = editor.graph.module(node) if new or node not in editor.origin else editor.origin[node].module
    read = [str(value.target) for value in inputs if value.op == "get_attr"]
    cell = {"name": node.name, "kind": "", "facts": _facts(module), "reads": read}
    if module is not None:
        cell |= {"name": str(target).rpartition(".")[2], "kind": type(module).__name__}
    elif node.op == "placeholder":
        cell["kind"] = "input"
    elif node.op != "output":
        cell |= {"name": name_of_target(target, node.name), "kind": node.name}
    return {key: value for key, value in cell.items() if value}


def _facts(module: nn.Module | None) -> str:
    """Return the settings of one of torch's own layers; those of others may take any code to tell."""
    own = module is not None and is_torchs_layer(module)
    return module.extra_repr() if module is not None and own else ""
