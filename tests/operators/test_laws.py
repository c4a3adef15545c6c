"""The law of each role, for every row of the table, in every form that the row has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from fxfuse.affine import Affine
from fxfuse.call import Plan
from fxfuse.editor import Editor
from fxfuse.graph import Graph
from fxfuse.operator_table import operator_of
from fxfuse.operators import OPERATORS
from fxfuse.operators.roles import AffineSource, Carrier, Linear, View
from tests.helpers import assert_equal, run
from tests.operators.samples import NEVER_FOLDED, Sample, samples
from tests.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLES = samples()
ROLES: dict[str, type[View]] = {role.__name__: role for role in (Linear, AffineSource, Carrier)}


def of(role: str) -> pytest.MarkDecorator:
    chosen = [sample for sample in SAMPLES if sample.role == role]
    return pytest.mark.parametrize("sample", chosen, ids=str)


def seen(sample: Sample) -> tuple[Graph, View]:
    """The graph of a sample, and the view of its one call."""
    graph_module = fx.symbolic_trace(sample.model)
    ShapeProp(graph_module).propagate(sample.x)
    graph = Graph(graph_module)
    nodes = [node for node in graph.nodes if graph.operator(node) is not None]
    assert len(nodes) == 1, "more than the call was read, or nothing"
    view = graph.view(nodes[0])
    assert view is not None, "the call was not read"
    return graph, view


def names(targets: Iterable[object]) -> set[str]:
    return {str(getattr(target, "__name__", target)) for target in targets}


def test_every_row_of_the_table_has_a_sample() -> None:
    assert not names(set(OPERATORS) - NEVER_FOLDED - {sample.target for sample in SAMPLES})


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_call_is_found_in_the_table_and_plays_its_role(sample: Sample) -> None:
    graph, view = seen(sample)
    assert view.call.operator is OPERATORS[sample.target]
    assert isinstance(view, ROLES[sample.role])
    assert view.input.op == "placeholder"
    assert graph.plays(view.node, ROLES[sample.role])


@of("Linear")
def test_a_linear_operation_absorbs_what_follows(sample: Sample) -> None:
    graph, view = seen(sample)
    assert isinstance(view, Linear)
    expected, linear_map = run(sample.model, (sample.x,)), view.linear_map()
    channels = linear_map.out_channels
    assert expected.shape[view.output_axis] == channels
    affine = Affine(randn(channels, seed=5), randn(channels, seed=6))
    editor = Editor(graph)
    editor.apply(Plan(writes=(view.with_map(linear_map.then_affine(affine)),)))
    graph.graph_module.recompile()
    shaped = affine.rearrange(lambda t: t.reshape(-1, *[1] * (-1 - view.output_axis)))
    assert_equal(shaped(expected), run(graph.graph_module, (sample.x,)))
    assert_equal(expected, run(sample.model, (sample.x,)), rtol=0.0)


def stored(graph: Graph, view: Linear, permutation: fx.Node | None, name: str) -> torch.Tensor:
    """What the call reads, or what is permuted for it before."""
    if permutation is None:
        tensor: torch.Tensor = view.call.tensor(name, required=True)
        return tensor
    return graph.constants.value(permutation.all_input_nodes[0], name=name, of="the permutation")


@of("Linear")
def test_a_linear_operation_takes_back_its_own_weights(sample: Sample) -> None:
    graph, view = seen(sample)
    assert isinstance(view, Linear)
    write = view.with_map(view.linear_map())
    for name, tensor in write.constants.items():
        old = stored(graph, view, write.through.get(name), name)
        assert torch.equal(tensor, old)
        assert (tensor.dtype, tensor.stride()) == (old.dtype, old.stride())
    assert graph.constants.tensors(view.node) == []


@of("AffineSource")
def test_an_affine_source_is_its_affine(sample: Sample) -> None:
    _, view = seen(sample)
    assert isinstance(view, AffineSource)
    affine = view.affine()
    assert affine.scale.dtype == affine.shift.dtype == torch.float64
    assert_equal(run(sample.model, (sample.x,)), affine(sample.x))


@of("Carrier")
def test_an_affine_passes_a_carrier(sample: Sample) -> None:
    _, view = seen(sample)
    assert isinstance(view, Carrier)
    sizes = [4] + [1] * (sample.x.ndim - 2)
    affine = Affine(randn(*sizes, seed=5), randn(*sizes, seed=6))
    ((value, pulled),) = view.pull(affine)
    assert value is view.input
    assert_equal(affine(run(sample.model, (sample.x,))), run(sample.model, (pulled(sample.x),)))


class Tapped(nn.Conv2d):
    """Another operation: its forward is its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


class Renamed(nn.Conv2d):
    """The same operation under another name."""

    def __init__(self) -> None:
        super().__init__(3, 4, 1)

    def extra_repr(self) -> str:
        return "renamed"


class Computed(nn.Conv2d):
    """Another operation: its weight is not the stored one."""

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self._parameters["other"]  # type: ignore[return-value]


@pytest.mark.parametrize(("cls", "known"), [(Tapped, False), (Renamed, True), (Computed, False)])
def test_a_subclass_counts_if_it_changes_nothing(cls: type[nn.Module], known: bool) -> None:
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    assert (operator_of(module) is OPERATORS[nn.Conv2d]) is known
