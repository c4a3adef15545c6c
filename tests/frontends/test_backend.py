"""``torch.compile(model, backend="fxfuse")`` gives what the model gives, whatever happens to the model afterwards."""

from __future__ import annotations

import copy
import gc
import importlib.metadata
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report
from fxfuse.frontends.backend import fxfuse
from tests.support.helpers import Model, assert_equal, assert_same, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

X = torch.linspace(-2, 3, 2 * 3 * 6 * 6, dtype=torch.float64).sin().reshape(2, 3, 6, 6)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def net() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)))


def call(model: nn.Module, x: Tensor) -> Any:
    return model(x)


def compiled(function: Any, reports: list[Report] | None = None, **options: Any) -> Any:
    """The model or function, compiled; the inner backend runs the graph as it is."""
    told = [] if reports is None else reports
    return torch.compile(function, backend=fxfuse, options={"backend": "eager", "report": told.append, **options})


def counts(reports: list[Report]) -> list[int]:
    return [len(report.folded) for report in reports]


NAMES = {entry.name for entry in importlib.metadata.entry_points(group="torch_dynamo_backends")}


@pytest.mark.skipif("fxfuse" not in NAMES, reason="the package is not installed, so torch cannot find it by its name")
def test_the_name_is_enough() -> None:
    reports: list[Report] = []
    with torch.no_grad():
        torch.compile(net(), backend="fxfuse", options={"backend": "eager", "report": reports.append})(X)
    assert counts(reports) == [1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_folds_where_weights_are_constants(mode: Callable[[], Any]) -> None:
    model, reports = net(), list[Report]()
    with mode():
        assert_equal(model(X), compiled(model, reports)(X))
    assert counts(reports) == [1]


def test_it_folds_where_nothing_requires_gradients() -> None:
    model, reports = net().requires_grad_(requires_grad=False), list[Report]()
    assert_equal(model(X), compiled(model, reports)(X))
    assert counts(reports) == [1]


def test_graphs_that_are_trained_are_left_alone() -> None:
    model, reports = net(), list[Report]()
    expected = torch.autograd.grad(model(X).square().sum(), list(model.parameters()))
    with pytest.warns(UserWarning, match="in which 1 operation would fold: it may be differentiated"):
        given = torch.autograd.grad(compiled(model, reports)(X).square().sum(), list(model.parameters()))
    assert_equal(expected, given)
    assert reports == []


def test_graphs_that_turn_gradients_on_are_left_alone() -> None:
    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: model(x).square().sum())(x)

    model, reports = net(), list[Report]()
    with torch.no_grad():
        assert_equal(slope(X), compiled(slope, reports)(X))
    assert reports == []


def test_batches_of_any_size_are_compiled_twice_at_most() -> None:
    model, reports = net(), list[Report]()
    function = compiled(model, reports)
    for batch in (2, 5, 7, 4):
        assert_same(model, function, values(batch, 3, 6, 6))
    assert counts(reports) == [1, 1]
    assert_same(model, function, values(3, 3, 9, 11))


def test_another_number_of_axes_is_another_graph() -> None:
    model, reports = trained(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))), list[Report]()
    function = compiled(model, reports)
    for shape in ((3, 5), (3, 4, 5)):  # the second is a batch of sequences, and its norm acts along another axis
        assert_same(model, function, values(*shape))
    assert counts(reports) == [1, 0]


def test_four_equal_blocks_share_a_graph_and_not_their_weights() -> None:
    class Block(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    blocks = trained(nn.Sequential(*[Block(conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3)) for _ in range(4)]))
    regional, reports = copy.deepcopy(blocks), list[Report]()
    for block in regional:
        block.compile(backend=fxfuse, options={"backend": "eager", "report": reports.append})
    for _ in range(2):
        assert_same(blocks, regional, X)
    assert counts(reports) == [1]


def test_more_models_than_are_remembered_take_turns() -> None:
    models, reports = [net() for _ in range(10)], list[Report]()
    function = compiled(call, reports)
    for turn in (*range(10), 0, 9, 3, 3, 8, *range(10)):
        assert_equal(run(models[turn], (X,)), run(function, (models[turn], X)))
    del models[:8]
    gc.collect()
    models += [net() for _ in range(8)]  # where the others were
    for model in models:
        assert_equal(run(model, (X,)), run(function, (model, X)))
    assert counts(reports) == [1]


def test_a_copy_of_a_compiled_model_has_its_own_weights() -> None:
    model = net()
    first = compiled(model)
    assert_same(model, first, X)
    second = copy.deepcopy(first)
    with torch.no_grad():
        second._orig_mod[0].weight.mul_(-2)
    for function in (first, second, first):
        assert_same(function._orig_mod, function, X)


def test_a_model_that_is_switched_to_training_uses_its_batches() -> None:
    model = net()
    function = compiled(model)
    assert_same(model, function, X)
    other = copy.deepcopy(model).train()
    model.train()
    assert_equal(run(other, (X,)), run(function, (X,)))
    assert_equal(other.state_dict(), model.state_dict())


def test_a_graph_break_costs_the_fold_across_it_alone() -> None:
    class Broken(Model):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.whole(x).relu())
            torch._dynamo.graph_break()
            return self.norm(x)

    model = trained(Broken(whole=net(), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    reports = list[Report]()
    assert_same(model, compiled(model, reports), X)
    assert counts(reports) == [1, 0]
    assert [decision.reason for decision in reports[1].skipped] == [Reason.NOT_LINEAR]


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())], ids=["none", "no norm"])
def test_a_model_without_norms_is_handed_on(model: nn.Module) -> None:
    reports = list[Report]()
    assert_same(model.double(), compiled(model, reports), X)
    assert sum(counts(reports)) == 0


@pytest.mark.parametrize("options", [{"rules": ()}, {"allow_copies": False}, {"guards": False}], ids=str)
def test_options_of_fuse_graph_are_passed_on(options: dict[str, Any]) -> None:
    class Twice(Model):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.norm(self.conv(x)), self.conv(x)

    model = trained(Twice(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))
    reports = list[Report]()
    assert_same(model, compiled(model, reports, **options), X)
    expected = {"rules": [Reason.NOT_ASKED], "allow_copies": [Reason.SHARED], "guards": []}[next(iter(options))]
    assert [decision.reason for decision in reports[0].skipped] == expected
    assert counts(reports) == [int("guards" in options)]


def test_a_graph_in_training_mode_warns_of_nothing() -> None:
    model = net().train()
    compiled(model)(X).square().sum().backward()  # a warning would be an error


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_compiles_the_folded_graph() -> None:
    model: Any = net()
    reports = list[Report]()
    function = compiled(model, reports, backend="inductor")
    for batch in (2, 5, 7):
        assert_same(model, function, values(batch, 3, 6, 6))
    with torch.no_grad():
        model[0].weight.mul_(-2)
    assert_same(model, function, X)
    assert counts(reports) == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, reports = net().to(dtype), list[Report]()
    given = run(compiled(model, reports), (X.to(dtype),))
    exact = run(copy.deepcopy(model).double(), (X.to(dtype).double(),))
    assert given.dtype == dtype
    assert_equal(exact, given.double(), rtol=8 * torch.finfo(dtype).eps)
    assert counts(reports) == [1]


@pytest.mark.parametrize(("between", "count"), [(nn.ReLU(), 2), (nn.Identity(), 3)], ids=["apart", "merged"])
@pytest.mark.parametrize("first", [True, False])
def test_tied_weights_and_equal_ones_that_are_not(first: bool, between: nn.Module, count: int) -> None:
    def two(*, tied: bool) -> nn.Module:
        layers = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), between, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)]
        if tied:
            layers[3].weight = layers[0].weight
        return trained(nn.Sequential(*layers))

    reports = list[Report]()
    function = compiled(call, reports)
    for model in [two(tied=first), two(tied=not first)] * 2:
        assert_equal(run(model, (X,)), run(function, (model, X)))
    assert set(counts(reports)) == {count}
