"""The law of each role, for every row of the table, in every form that the row has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx, nn

from fxfuse.algebra.affine import Affine
from fxfuse.edit.editor import Editor
from fxfuse.graph.plan import Plan
from fxfuse.graph.registry import operator_of
from fxfuse.operators import OPERATORS
from fxfuse.operators.joins import Join
from fxfuse.operators.roles import AffineSource, Carrier, Linear, View
from fxfuse.operators.slices import Piece
from fxfuse.operators.sums import Sum
from fxfuse.report.reasons import Reason, Refusal
from tests.operators.samples import WITH_ROLE, samples
from tests.operators.samples.norms import NEVER_FOLDED
from tests.operators.views import seen
from tests.support.helpers import assert_equal, run
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fxfuse.graph.graph import Graph
    from tests.operators.sample import Sample

pytestmark = pytest.mark.filterwarnings("ignore:.*upsample. is deprecated")
SAMPLES = samples()
ROLES: dict[str, type[View]] = {
    "Linear": Linear,
    "AffineSource": AffineSource,
    "Tail": AffineSource,
    "Carrier": Carrier,
    "Join": Join,
    "Sum": Sum,
    "Parts": Piece,
}
CARRIERS = ("Carrier", "Parts", "Join", "Sum")


def of(*roles: str, pulled: bool = False) -> pytest.MarkDecorator:
    """Samples of some roles; with ``pulled`` those alone that let some affine pass on its way back."""
    chosen = [s for s in SAMPLES if s.role in roles and not (pulled and s.pull is None)]
    return pytest.mark.parametrize("sample", chosen, ids=str)


def names(targets: Iterable[object]) -> set[str]:
    return {str(getattr(target, "__name__", target)) for target in targets}


def test_every_row_of_the_table_has_a_sample() -> None:
    assert not names(set(WITH_ROLE) - NEVER_FOLDED - {sample.target for sample in SAMPLES})


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_call_is_found_in_the_table_and_plays_its_role(sample: Sample) -> None:
    graph, view = seen(sample)
    called = view.call.arguments["input"] if sample.role == "Parts" else view.node
    assert graph.operator(called) is OPERATORS[sample.target]
    assert isinstance(view, ROLES[sample.role])
    assert view.input.op == "placeholder"
    plays = graph.may_be if sample.role == "Sum" else graph.plays
    assert plays(view.node, ROLES[sample.role])
    shape = view.node.meta["val"].shape
    assert all(shape[axis] == size for axis, size in view.known_sizes().items())


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
        assert tensor is not None
        if write.target is not None and tensor.shape != old.shape:
            old = old.t().contiguous()  # as ``linear`` reads it, which the call becomes
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


@of("Tail")
def test_the_tail_of_a_norm_is_what_follows_the_bare_normalisation(sample: Sample) -> None:
    graph, view = seen(sample)
    assert isinstance(view, AffineSource)
    expected, affine, write = run(sample.model, sample.inputs), view.affine(), view.without_affine()
    assert affine.scale.dtype == affine.shift.dtype == torch.float64
    assert write is not None
    assert not view.leaves_nothing
    Editor(graph).apply(Plan(writes=(write,)))
    graph.graph_module.recompile()
    bare = run(graph.graph_module, sample.inputs)
    assert_equal(expected, affine(bare))
    assert not torch.allclose(expected, bare)
    assert_equal(expected, run(sample.model, sample.inputs), rtol=0.0)


def as_dtype(affine: Affine, sample: Sample) -> Affine:
    return affine.rearrange(lambda t: t.to(sample.x.dtype))


def moved(graph: Graph, sample: Sample, affines: dict[fx.Node, Affine]) -> tuple[torch.Tensor, ...]:
    """The inputs of a sample, each behind its affine."""
    values = dict(zip(graph.graph_module.graph.find_nodes(op="placeholder"), sample.inputs, strict=True))
    after = tuple(affines[node](x) if node in affines else x for node, x in values.items())
    assert [x.shape for x in after] == [x.shape for x in sample.inputs], "an affine enlarges its value"
    return after


@of(*CARRIERS, pulled=True)
def test_an_affine_passes_a_carrier_on_its_way_back(sample: Sample) -> None:
    graph, view = seen(sample)
    assert isinstance(view, Carrier)
    assert sample.pull is not None
    expected = run(sample.model, sample.inputs)
    affine = as_dtype(sample.pull(expected.shape), sample)
    pulled = dict(view.pull(affine))
    assert_equal(affine(expected), run(sample.model, moved(graph, sample, pulled)))


@of("Carrier", "Parts", "Join")
def test_an_affine_passes_a_carrier_on_its_way_on(sample: Sample) -> None:
    graph, view = seen(sample)
    assert isinstance(view, Carrier)
    expected = run(sample.model, sample.inputs)
    values = dict(zip(graph.graph_module.graph.find_nodes(op="placeholder"), sample.inputs, strict=True))
    for source in view.inputs:
        affine = as_dtype(sample.push(values[source].shape), sample)
        pushed = view.push(affine, source)
        assert_equal(run(sample.model, moved(graph, sample, {source: affine})), pushed(expected))


@of("Sum")
def test_an_affine_of_one_value_alone_does_not_pass_a_sum_on_its_way_on(sample: Sample) -> None:
    _, view = seen(sample)
    assert isinstance(view, Sum)
    for source in view.inputs:
        with pytest.raises(Refusal) as raised:
            view.push(as_dtype(sample.push(sample.x.shape), sample), source)
        assert raised.value.reason is Reason.NOT_LINEAR


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
