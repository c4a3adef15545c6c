"""What the rows of the table say of shapes and memory, against what torch does; and whose blocks have no row."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fx_fuse
from fxfuse.graph.graph import Graph
from fxfuse.graph.registry import OPERATORS, NoRole
from tests.operators.calls import Function, Method, Single
from tests.operators.sample import Sample
from tests.operators.samples import samples
from tests.support.helpers import assert_same, trained
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:.*upsample. is deprecated")
# Operations that play no role and take one tensor, and the other arguments of those that take more.
_PLAIN: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        "abs exp sin cos sigmoid tanh relu6 elu selu gelu silu mish hardswish hardsigmoid softplus logsigmoid detach t "
        "ravel rrelu zeros_like".split(),
        (),
    ),
    **dict.fromkeys(["clamp", "pow"], (0.5,)),
    **dict.fromkeys(["softmax", "log_softmax"], (1,)),
    "threshold": (0.1, 0.2),
}


def others() -> Iterator[Sample]:
    """Calls of operations that play no role."""
    for target, row in OPERATORS.items():
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        if row.view is NoRole and name in _PLAIN:
            arguments = _PLAIN[name]
            model = Method(target, *arguments) if isinstance(target, str) else Function(target, *arguments)
            yield Sample(model, target, randn(3, 5), "none")
    layers: list[nn.Module] = [nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Softsign(), nn.LPPool2d(2, 2)]
    for layer in (*layers, nn.LocalResponseNorm(3)):
        yield Sample(Single(layer), type(layer), randn(2, 8, 6, 4).abs(), "none")


SAMPLES = [*samples(), *others()]


def with_strides(word: str) -> list[Sample]:
    """The samples of which the rows say this of the strides of the result."""
    return [sample for sample in SAMPLES if OPERATORS[sample.target].strides == word]


def run(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """What a model makes of tensors with memory of their own."""
    with torch.no_grad(), torch.random.fork_rng():
        return model(*inputs)


def graph_of(sample: Sample) -> tuple[Graph, fx.Node, fx.Node]:
    """The graph of a sample, the node of its call, and the value that it returns."""
    graph = Graph(fx.symbolic_trace(sample.model))
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    called = next(node for node in graph.nodes if graph.row(node) is OPERATORS[sample.target])
    assert isinstance(output, fx.Node)
    return graph, called, output


def assert_axes(sample: Sample, expected: Tensor) -> None:
    """The result has as many axes as the row says, and the input as many as it says of the result."""
    graph_module = fx.symbolic_trace(sample.model)
    inputs, output = graph_module.graph.find_nodes(op="placeholder"), graph_module.graph.output_node().args[0]
    assert isinstance(output, fx.Node)
    for forward in (True, False):
        described = zip(inputs, sample.inputs, strict=False) if forward else [(output, expected)]
        for node in graph_module.graph.nodes:
            node.meta.pop("val", None)
        for node, tensor in described:
            node.meta["val"] = tensor.to("meta")
        graph = Graph(graph_module)
        asked = [(output, expected)] if forward else list(zip(inputs, sample.inputs, strict=False))
        known = [(rank, tensor.ndim) for node, tensor in asked if (rank := graph.rank(node)) and rank.proven]
        assert all(rank.axes == axes for rank, axes in known)
        row = OPERATORS[sample.target]
        assert known or not forward or (row.shape is None and row.rank is None) or row.shape == "linear"


def assert_shape(sample: Sample, expected: Tensor) -> None:
    """The result has the shape that the row says."""
    row = OPERATORS[sample.target]
    if row.shape == "same":
        assert expected.shape == sample.x.shape
    if row.takes:
        assert sample.x.ndim in row.takes


def assert_memory(sample: Sample) -> None:
    """The result has memory of its own, or that of an input, as the row says."""
    row, inputs = OPERATORS[sample.target], [x.clone() for x in sample.inputs]
    given = run(sample.model, tuple(inputs))
    graph, called, _ = graph_of(sample)
    memory = {x.untyped_storage().data_ptr() for x in inputs}
    shared = given.untyped_storage().data_ptr() in memory
    assert row.result is not None or sample.target is operator.getitem
    if graph.mutated(called):
        assert shared
    elif row.result in ("new", "view", "parts", "in place"):
        assert shared == (row.result != "new") or given.numel() == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_result_is_what_the_row_says(sample: Sample) -> None:
    expected = run(sample.model, sample.inputs)
    assert_axes(sample, expected)
    assert_shape(sample, expected)
    assert_memory(sample)


@pytest.mark.parametrize("sample", with_strides("fixed"), ids=str)
def test_fixed_strides_do_not_depend_on_those_of_the_input(sample: Sample) -> None:
    x = sample.x if sample.x.ndim == 1 else sample.x.transpose(0, 1).contiguous().transpose(0, 1)
    assert run(sample.model, (x, *sample.others)).stride() == run(sample.model, sample.inputs).stride()


@pytest.mark.parametrize("sample", with_strides("dense"), ids=str)
def test_dense_strides_are_one_of_two_orders(sample: Sample) -> None:
    formats = (torch.channels_last,) if sample.x.ndim == 4 else (torch.channels_last_3d,) if sample.x.ndim == 5 else ()
    for x in (sample.x, *(sample.x.contiguous(memory_format=one) for one in formats)):
        given = run(sample.model, (x, *sample.others))
        assert given.is_contiguous() or any(given.is_contiguous(memory_format=one) for one in formats)


class Branching(nn.Module):
    """A block that cannot be traced, of which the result has the strides of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * 3


class Viewed(nn.Module):
    """A norm behind a view, a block, and a reader that takes some strides alone."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(self.norm(self.conv(x).transpose(2, 3)))
        return y.view(-1)


@pytest.mark.parametrize("name", ["MMBlock", "LinearAttention", "MatmulMixer", "ContiguousCopy", "Conv2dSame"])
def test_a_block_of_the_user_is_no_layer_by_its_name(name: str) -> None:
    block: nn.Module = type(name, (Branching,), {})()
    model, x = trained(Viewed(block)), randn(2, 4, 3, 5)
    fused = fx_fuse(model)
    assert_same(model, fused, x)
    assert Report.of(fused).by_reason() == {Reason.LAYOUT: 1}


class CastLike(nn.Module):
    """A norm of which the result gets the dtype of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.norm(y).type_as(y)
        return z


def test_who_only_asks_for_a_dtype_is_no_reader() -> None:
    model, x = trained(CastLike()), randn(2, 4, 3, 5)
    fused = fx_fuse(model)
    assert_same(model, fused, x)
    assert Report.of(fused).skipped == ()
