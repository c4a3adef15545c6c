"""The plan: what each kernel takes in, where it stands, and which of them may write into a value of another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fxfuse.lowering.reading import Read, Reading, Unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from torch import Tensor, fx

    from fxfuse.lowering.layer import Layer

    class Emitter(Protocol):
        """Makes kernels for one device."""

        def obstacle(self, layer: Layer) -> str:
            """Return why there is no kernel for a layer, empty where there is one."""

        def emit(self, layer: Layer, missed: Callable[[], None]) -> Callable[..., Tensor]:
            """Return a kernel; ``missed`` is told where torch's own operations run in its place."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A layer and what it takes in.

    Attributes:
        nodes: the layer, the sum, and the activation, as far as they are part of it.
        source: the value that the layer reads.
        other: the value that is added.
        layer: what is computed.
        tensors: the tensors of the model that it is made of.
    """

    nodes: tuple[fx.Node, ...]
    source: fx.Node
    other: fx.Node | None
    layer: Layer
    tensors: tuple[Tensor, ...]

    @property
    def end(self) -> fx.Node:
        """The node of which the kernel gives the value."""
        return self.nodes[-1]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be done with a graph.

    Attributes:
        kernels: the kernels, by their last nodes.
        inside: the nodes inside of a kernel, of which the values are never made.
        left: layers that stay as they are, with the reason.
        in_order: the kernels must give their values in the usual order in memory.
    """

    kernels: dict[fx.Node, Kernel]
    inside: dict[fx.Node, Kernel]
    left: list[tuple[fx.Node, str]]
    in_order: bool


def make_plan(reading: Reading, emitter: Emitter) -> Plan:
    """Decide what each kernel takes in."""
    reads: dict[fx.Node, Read] = {}
    left: list[tuple[fx.Node, str]] = []
    for node in reading.nodes:
        try:
            found = None if node in reading.dead else reading.layer(node)
            why = emitter.obstacle(found.layer) if found is not None else ""
        except Unfit as unfit:
            found, why = None, str(unfit)
        if why:
            left.append((node, why))
        elif found is not None:
            reads[node] = found
    sums = dict(_sums(reading, reads))
    kernels = [_kernel(reading, read, sums.get(node)) for node, read in reads.items()]
    position = dict(reading.index)
    position |= {node: reading.index[kernel.end] for kernel in kernels for node in kernel.nodes}
    kernels = [_written_in_place(reading, kernel, position) for kernel in kernels]
    inside = {node: kernel for kernel in kernels for node in kernel.nodes[:-1]}
    return Plan({kernel.end: kernel for kernel in kernels}, inside, left, reading.writes_through_views)


def _sums(reading: Reading, reads: dict[fx.Node, Read]) -> Iterator[tuple[fx.Node, tuple[fx.Node, fx.Node]]]:
    """Yield the layers that take a sum, each with the sum and the other value: the later one of two layers."""
    for node in reading.nodes:
        values = reading.sum(node)
        layers = [v for v in values if v in reads and reads[v].layer.kind != "norm" and reading.only_reader(v) is node]
        # ``other += layer`` is seen by whoever reads the other value.
        layers = [v for v in layers if set(reading.written(node)) <= {v}]
        if layers and len(set(values)) == 2 and node not in reading.dead:
            layer = max(layers, key=reading.index.__getitem__)
            yield layer, (node, values[1] if values[0] is layer else values[0])


def _kernel(reading: Reading, read: Read, added: tuple[fx.Node, fx.Node] | None) -> Kernel:
    """Return the kernel of a layer with as much as can be taken in."""
    candidates: list[tuple[fx.Node, ...]] = [(read.node,)]
    if added is not None:
        candidates.append((read.node, added[0]))
    longest = candidates[-1]
    reader = reading.only_reader(longest[-1])
    found = None if reader is None else reading.activation(reader)
    if reader is not None and found is not None and found[0] is longest[-1]:
        candidates.append((*longest, reader))
    for nodes in reversed(candidates):
        sums = added is not None and added[0] in nodes
        other = added[1] if added is not None and sums else None
        activation = found[1] if found is not None and reader in nodes else None
        if _movable(reading, nodes, read.source, other):
            layer = replace(read.layer, activation=activation, sums=sums)
            return Kernel(nodes, read.source, other, layer, read.tensors)
    raise AssertionError("a layer by itself needs not move")


def _movable(reading: Reading, nodes: tuple[fx.Node, ...], source: fx.Node, other: fx.Node | None) -> bool:
    """Whether the layer can be computed where the last of its nodes stands, and nobody sees the values between."""
    end = nodes[-1]
    asked = (question for node in nodes[:-1] for question in reading.questions(node))
    if any(reading.index[question] < reading.index[end] for question in asked):
        return False
    if reading.written_between(source, nodes[0], end):
        return False
    return other is None or not reading.written_between(other, nodes[1], end)


def _written_in_place(reading: Reading, kernel: Kernel, position: dict[fx.Node, int]) -> Kernel:
    """Let the kernel write its sum into the other value, if that is dead afterwards."""
    if kernel.other is None:
        return kernel
    family = reading.family(kernel.other, kernel.nodes)
    if family is None or kernel.source in family:
        return kernel
    here = position[kernel.end]
    for member in family:
        for user in member.users:
            if user not in kernel.nodes and (user.op == "output" or position[user] >= here):
                return kernel
    return replace(kernel, layer=replace(kernel.layer, in_place=True))
