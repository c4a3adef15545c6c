"""The plan: what each kernel takes in, where it stands, and which of them may write into a value of another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fxfuse.lowering.reading import Reading, Unfit
from fxfuse.report.lowered import Lowered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from fxfuse.lowering.layer import Layer

    Found = tuple[fx.Node, Layer]


class Kernel(NamedTuple):
    """A layer and what it takes in.

    Attributes:
        nodes: the layer, the sum, and the activation, as far as they are part of it.
        reads: the value that the layer reads, and the one that is added, if any is.
        layer: what is computed.
    """

    nodes: tuple[fx.Node, ...]
    reads: tuple[fx.Node, ...]
    layer: Layer

    @property
    def end(self) -> fx.Node:
        """The node of which the kernel gives the value."""
        return self.nodes[-1]


class Plan(NamedTuple):
    """What is to be done with a graph.

    Attributes:
        kernels: the kernels, by their last nodes.
        inside: the nodes inside of a kernel, of which the values are never made.
        left: layers that stay as they are, with the reason.
        in_order: the kernels must give their values in the usual order in memory.
    """

    kernels: dict[fx.Node, Kernel]
    inside: dict[fx.Node, Kernel]
    left: dict[fx.Node, str]
    in_order: bool

    def told(self, reading: Reading) -> tuple[Lowered, ...]:
        """Return what becomes of each layer."""
        found = {node: Lowered(reading.path(node), reading.kind(node), left=why) for node, why in self.left.items()}
        for kernel in self.kernels.values():
            layer, first = kernel.layer, kernel.nodes[0]
            takes = ("sum",) * layer.sums + (() if layer.activation is None else (layer.activation.name,))
            found[first] = Lowered(layer.path, reading.kind(first), takes, layer.in_place)
        return tuple(found[node] for node in reading.nodes if node in found)


def make_plan(reading: Reading, emitter: Any) -> Plan:
    """Decide what each kernel takes in."""
    reads: dict[fx.Node, Found] = {}
    left: dict[fx.Node, str] = {}
    for node in (node for node in reading.nodes if node not in reading.dead):
        try:
            found = reading.layer(node)
            why = emitter.obstacle(found[1]) if found is not None else ""
        except Unfit as unfit:
            found, why = None, str(unfit)
        if why:
            left[node] = why
        elif found is not None:
            reads[node] = found
    sums = dict(_sums(reading, reads))
    kernels = [_kernel(reading, node, *read, sums.get(node)) for node, read in reads.items()]
    position = {**reading.index, **{node: reading.index[k.end] for k in kernels for node in k.nodes}}
    kernels = [_written_in_place(reading, kernel, position) for kernel in kernels]
    inside = {node: kernel for kernel in kernels for node in kernel.nodes[:-1]}
    return Plan({kernel.end: kernel for kernel in kernels}, inside, left, reading.writes_through_views)


def _sums(
    reading: Reading, reads: dict[fx.Node, tuple[fx.Node, Layer]]
) -> Iterator[tuple[fx.Node, tuple[fx.Node, fx.Node]]]:
    """Yield the convolutions that take a sum, each with the sum and the other value: the later one of two layers."""
    for node in reading.nodes:
        values = reading.sum(node)
        layers = [v for v in values if v in reads and reads[v][1].kind == "conv" and reading.only_reader(v) is node]
        # ``other += layer`` is seen by whoever reads the other value.
        layers = [v for v in layers if set(reading.written(node)) <= {v}]
        if layers and len(set(values)) == 2 and node not in reading.dead:
            layer = max(layers, key=reading.index.__getitem__)
            yield layer, (node, values[values[0] is layer])


def _kernel(
    reading: Reading, start: fx.Node, source: fx.Node, layer: Layer, added: tuple[fx.Node, fx.Node] | None
) -> Kernel:
    """Return the kernel of a layer with as much as can be taken in."""
    nodes: tuple[fx.Node, ...] = (start,) if added is None else (start, added[0])
    reader = reading.only_reader(nodes[-1])
    found = None if reader is None else reading.activation(reader)
    nodes = (*nodes, reader) if reader is not None and found is not None and found[0] is nodes[-1] else nodes
    while True:
        other = added[1:] if added is not None and added[0] in nodes else ()
        if _movable(reading, nodes, (source, *other)):
            activation = found[1] if found is not None and reader in nodes else None
            return Kernel(nodes, (source, *other), replace(layer, activation=activation, sums=bool(other)))
        nodes = nodes[:-1]


def _movable(reading: Reading, nodes: tuple[fx.Node, ...], reads: tuple[fx.Node, ...]) -> bool:
    """Whether the layer can be computed where the last of its nodes stands, and nobody sees the values between."""
    asked = [question for node in nodes[:-1] for question in reading.questions(node)]
    early = any(reading.index[question] < reading.index[nodes[-1]] for question in asked)
    read_at = zip(reads, nodes, strict=False)  # the layer reads the first value, the sum the second
    return not early and not any(reading.written_between(value, node, nodes[-1]) for value, node in read_at)


def _written_in_place(reading: Reading, kernel: Kernel, position: dict[fx.Node, int]) -> Kernel:
    """Let the kernel write its sum into the other value, if that is dead afterwards."""
    source, *others = kernel.reads
    family = reading.family(others[0], kernel.nodes) if others else None
    if family is None or source in family:
        return kernel
    users = {user for member in family for user in member.users if user not in kernel.nodes}
    if any(user.op == "output" or position[user] >= position[kernel.end] for user in users):
        return kernel
    return kernel._replace(layer=replace(kernel.layer, in_place=True))
