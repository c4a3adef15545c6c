"""Pictures of the notebooks: graphs with their roles in colour, and bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from torch import fx, nn

from fxfuse.extend import AffineSource, Carrier, Graph, Linear

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from matplotlib.axes import Axes
    from measuring import Step

ROLES: dict[type, tuple[str, str]] = {
    Linear: ("linear map", "#cfe2f6"),
    AffineSource: ("affine", "#ffdcb0"),
    Carrier: ("lets an affine pass", "#d8eecf"),
}
OTHER = ("anything else", "#ececec")
TRAVELLER = "#d9480f"  # the affine on its way, and what takes it in
WIDTH, HEIGHT, STEP = 1.1, 0.56, 1.75  # of a box, and from one box to the next


def draw(
    graphs: Mapping[str, fx.GraphModule],
    *,
    travelling: Mapping[tuple[str, str], str] | None = None,
    absorbing: Collection[str] = (),
) -> None:
    """Draw graphs below each other, from left to right.

    Args:
        graphs: a title for each.
        travelling: what to write on the edge between two nodes, in the colour of what travels.
        absorbing: names of nodes that get a frame in the same colour.
    """
    placed = [_places(graph.graph) for graph in graphs.values()]
    lanes = [max(y for _, y in places.values()) - min(y for _, y in places.values()) for places in placed]
    heights = [0.62 * lane + 0.75 for lane in lanes]
    last = max(x for places in placed for x, _ in places.values())
    size = (0.66 * (last + 1.2 * WIDTH), sum(heights) + 0.35)
    figure, rows = plt.subplots(len(graphs), figsize=size, squeeze=False, layout="constrained", height_ratios=heights)
    for (title, graph), places, row in zip(graphs.items(), placed, rows[:, 0], strict=True):
        _draw_one(row, graph, places, absorbing)
        for (start, end), text in (travelling or {}).items():
            _label_edge(row, _by_name(places, start), _by_name(places, end), text)
        row.set_title(title, loc="left", fontsize=10)
        row.set_xlim(-0.6 * WIDTH, last + 0.6 * WIDTH)
    patches = [Patch(facecolor=colour, edgecolor="grey", label=name) for name, colour in (*ROLES.values(), OTHER)]
    patches += [Patch(facecolor="white", edgecolor=TRAVELLER, linewidth=1.6, label="takes it in")] if absorbing else []
    figure.legend(
        handles=patches, loc="outside lower left", ncols=len(patches), frameon=False, fontsize=8, handlelength=1.2
    )
    plt.show()


def bars(axes: Axes, groups: Sequence[str], values: Mapping[str, Sequence[float]], *, form: str = "{:.0f}") -> None:
    """Draw a group of bars for each name, one bar for each key of ``values``."""
    width = 0.8 / len(values)
    for number, (label, heights) in enumerate(values.items()):
        places = [group + (number - (len(values) - 1) / 2) * width for group in range(len(groups))]
        drawn = axes.bar(places, heights, width=0.92 * width, label=label, color=("0.75", "#8fb8de", "#1f5fa8")[number])
        axes.bar_label(drawn, fmt=form, fontsize=8)
    axes.set_xticks(range(len(groups)), groups)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)


def draw_steps(rows: Mapping[str, Sequence[Step]]) -> None:
    """Draw what runs as a row of boxes, each as wide as the bytes that it reads and writes.

    Args:
        rows: a title for each.
    """
    _, axes = plt.subplots(figsize=(9.5, 0.85 * len(rows) + 0.6), layout="constrained")
    for number, steps in enumerate(rows.values()):
        left = 0.0
        for step in steps:
            width = (step.read + step.written) / 1e6
            colour = ROLES[Linear][1] if "convolution" in step.name else ROLES[AffineSource][1]
            colour = colour if "convolution" in step.name or "norm" in step.name else OTHER[1]
            axes.barh(-number, width, left=left, height=0.7, color=colour, edgecolor="0.45", linewidth=0.8)
            label = f"{step.name.replace('native_', '').replace('_', chr(10), 1)}\n{width:.1f}"
            axes.text(left + width / 2, -number, label, ha="center", va="center", fontsize=7)
            left += width
        axes.text(left + 0.2, -number, f"{left:.1f} MB", va="center", fontsize=9)
    axes.set_yticks([-number for number in range(len(rows))], list(rows))
    axes.set_xlabel("million bytes that are read and written")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.margins(x=0.08)
    plt.show()


def _draw_one(axes: Axes, graph: fx.GraphModule, places: dict[fx.Node, tuple[float, float]], framed: Any) -> None:
    read = Graph(graph)
    for node, (x, y) in places.items():
        framed_here = node.name in framed or str(node.target) in framed
        axes.add_patch(
            FancyBboxPatch(
                (x - WIDTH / 2, y - HEIGHT / 2),
                WIDTH,
                HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor=_colour(read, node),
                edgecolor=TRAVELLER if framed_here else "0.45",
                linewidth=2 if framed_here else 0.8,
            )
        )
        name, kind = _label(graph, node)
        size = 9 if len(name) < 10 else 7
        axes.text(x, y + (0.11 if kind else 0), name, ha="center", va="center", fontsize=size)
        axes.text(x, y - 0.14, kind, ha="center", va="center", fontsize=7, color="0.3")
        for reader in node.users:
            if reader in places:
                _arrow(axes, (x, y), places[reader])
    heights = [y for _, y in places.values()]
    axes.set_ylim(min(heights) - 0.45, max(heights) + 0.45)
    axes.axis("off")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    far = end[0] - start[0] > 1.5 * STEP and start[1] != end[1]
    bend = f"arc3,rad={0.12 if start[1] < end[1] else -0.12}" if far else "arc3,rad=0"
    ends = (start[0] + WIDTH / 2, start[1]), (end[0] - WIDTH / 2, end[1])
    arrow = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, color="0.35", shrinkA=0, shrinkB=0)
    arrow.set_connectionstyle(bend)
    axes.add_patch(arrow)


def _label_edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": TRAVELLER, "linewidth": 1.4}
    axes.text(*middle, text, ha="center", va="center", fontsize=9, color=TRAVELLER, bbox=box)


def _places(graph: fx.Graph) -> dict[fx.Node, tuple[float, float]]:
    """Return where each value stands: as far right as its longest way, branches above each other."""
    depth: dict[fx.Node, int] = {}
    lane: dict[fx.Node, float] = {}
    for node in graph.nodes:
        sources = [source for source in node.all_input_nodes if source in depth]
        if node.op == "get_attr" or (not sources and node.op != "placeholder"):
            continue  # constants would only hide the way of the data
        depth[node] = 1 + max((depth[source] for source in sources), default=-1)
        lane[node] = sum(lane[source] for source in sources) / max(1, len(sources))
        if len(sources) == 1:
            readers = [reader for reader in sources[0].users if len(reader.all_input_nodes) == 1]
            lane[node] += (len(sources[0].users) - 1) / 2 - readers.index(node) if node in readers else 0
    return {node: (STEP * depth[node], lane[node]) for node in depth}


def _by_name(places: dict[fx.Node, tuple[float, float]], name: str) -> tuple[float, float]:
    return next(place for node, place in places.items() if name in (node.name, str(node.target)))


def _colour(graph: Graph, node: fx.Node) -> str:
    row = graph.operator(node)
    view = row and (row.otherwise if row.otherwise and len(node.all_input_nodes) > 1 else row.view)
    return next((colour for role, (_, colour) in ROLES.items() if view and issubclass(view, role)), OTHER[1])


def _label(graph: fx.GraphModule, node: fx.Node) -> tuple[str, str]:
    """Return what stands in a box: the name of a layer and its class, or the name of a value."""
    if node.op != "call_module":
        return node.name if len(node.name) < 13 else f"{node.name[:11]}\N{HORIZONTAL ELLIPSIS}", ""
    layer = graph.get_submodule(str(node.target))
    size = "x".join(map(str, layer.kernel_size)) if isinstance(layer, (nn.Conv1d, nn.Conv2d)) else ""
    return str(node.target), f"{type(layer).__name__} {size}".strip()
