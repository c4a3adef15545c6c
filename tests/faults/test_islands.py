"""Parts of a model that are captured one by one, and what they share; and layers on several devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fuse_graph, fx_fuse
from tests.faults.models import IMAGE, RULES, Everything, everything
from tests.support.helpers import Model, Structure, assert_same, folds, reasons, trained, unchanged, values


class Islands(Model):
    """Cannot be traced, so that each of its parts is captured by itself."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        if y.sum() > 1e9:
            return y
        return y + 2 * self.two(x)


def island(conv: nn.Module, *norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv, *norm, nn.ReLU())


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


def tied(*others: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Two islands of two layers with one weight."""
    one, two = island(conv(), nn.BatchNorm2d(4)), island(conv(), *others)
    two[0].weight = one[0].weight
    return one, two


def weights(model: Any) -> tuple[Any, Any]:
    return model.one[0].weight, model.two[0].weight


BOTH = {"one.1", "two.1"}
SIZE = 4 * 3 * 3 * 3 * 8 + 4 * 8  # the bytes of a weight and a bias


@pytest.fixture(params=[True, False], ids=["with inputs", "without"])
def inputs(request: pytest.FixtureRequest) -> Any:
    """With and without example inputs."""
    return values(*IMAGE) if request.param else None


def fused(one: nn.Module, two: nn.Module, inputs: Any, **options: Any) -> Any:
    model = trained(Islands(one=one, two=two))
    with unchanged(model):
        result = fx_fuse(model, inputs, **options)
    assert_same(model, result, values(*IMAGE))
    return result


def test_a_weight_of_two_islands_is_untied_and_that_is_told(inputs: Any) -> None:
    result = fused(*tied(nn.BatchNorm2d(4)), inputs)
    assert set(folds(result)) == BOTH
    # A run is one graph, in which the second layer has the weight for itself once the first has a copy.
    assert Report.of(result).copied_bytes == (2 if inputs is None else 1) * SIZE
    assert len({id(weight) for weight in weights(result)}) == 2


def test_a_weight_of_two_islands_stays_tied_where_copies_are_not_allowed(inputs: Any) -> None:
    result = fused(*tied(nn.BatchNorm2d(4)), inputs, allow_copies=False)
    assert reasons(result) == {(path, Reason.SHARED) for path in BOTH}
    assert len({id(weight) for weight in weights(result)}) == 1


def test_the_island_without_a_norm_keeps_the_weight(inputs: Any) -> None:
    one, two = tied()
    result = fused(one, two, inputs)
    assert folds(result) == ["one.1"]
    assert Report.of(result).copied_bytes == SIZE
    assert weights(result)[1] is two.get_parameter("0.weight")


def test_an_island_that_is_called_twice_is_one_afterwards(inputs: Any) -> None:
    one = island(conv(), nn.BatchNorm2d(4))
    result = fused(one, one, inputs)
    assert folds(result) == ["one.1"]
    assert result.one is result.two
    assert Report.of(result).copied_bytes == 0


def test_a_layer_with_its_norm_in_two_islands_is_one_afterwards(inputs: Any) -> None:
    layer, norm = conv(), nn.BatchNorm2d(4)
    result = fused(island(layer, norm), island(layer, norm), inputs)
    assert set(folds(result)) == (BOTH if inputs is None else {"one.1"})  # a run goes by modules: a norm has one path
    assert result.one[0] is result.two[0]


@pytest.mark.parametrize("norms", [(nn.BatchNorm2d(4),), ()], ids=["another norm", "no norm"])
def test_a_layer_of_two_islands_that_would_have_to_be_two_stays(norms: tuple[nn.Module, ...], inputs: Any) -> None:
    layer = conv()
    result = fused(island(layer, nn.BatchNorm2d(4)), island(layer, *norms), inputs)
    assert {reason for _, reason in reasons(result)} == {Reason.OWN_FORWARD}
    assert result.one[0] is result.two[0]


def test_a_norm_of_two_islands_goes_into_both_layers(inputs: Any) -> None:
    norm = nn.BatchNorm2d(4)
    result = fused(island(conv(), norm), island(conv(), norm), inputs)
    assert set(folds(result)) == (BOTH if inputs is None else {"one.1"})
    assert {d.into for d in Report.of(result).folded} == {("one.0",), ("two.0",)}


# -- several devices


LAYERS = sorted({name.partition(".")[0] for name, _ in everything().named_parameters()})


def assert_right(fused: Any, real: Everything) -> None:
    """With the values that were missing, the result is right; a layer without values is what it was."""
    missing = {name: tensor for name, tensor in fused.state_dict().items() if tensor.is_meta}
    assert missing
    fused.load_state_dict({name: real.state_dict()[name] for name in missing}, strict=False, assign=True)
    assert_same(real, fused, values(*IMAGE), rtol=1e-10)


@pytest.mark.parametrize("layer", [name for name in LAYERS if hasattr(everything(), name)])
def test_a_layer_without_values_is_left_and_the_rest_is_right(layer: str, structure: Structure) -> None:
    real, given = everything(), everything()
    part: Any = getattr(given, layer)
    if isinstance(part, nn.Parameter):
        setattr(given, layer, nn.Parameter(part.to("meta")))
    else:
        part.to("meta")
    with unchanged(given):
        result = fx_fuse(given, rules=RULES, structure=structure)
    assert Report.of(result).folded
    assert_right(result, real)


@pytest.mark.parametrize("layer", ["conv1", "bn2", "right", "before", "one", "q", "bn6", "norm"])
def test_a_layer_without_values_in_a_graph_that_is_changed_in_place(layer: str) -> None:
    real, given = everything(), everything()
    given.get_submodule(layer).to("meta")
    graph_module = fx.symbolic_trace(given)
    assert fuse_graph(graph_module, rules=RULES).folded
    assert_right(graph_module, real)


def test_a_constant_without_values_is_left() -> None:
    real, given = everything(), everything()
    given.gain = torch.empty_like(given.gain, device="meta")
    result = fx_fuse(given, rules=RULES)
    assert_right(result, real)
