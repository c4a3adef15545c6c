"""``ExportedProgram`` in, ``ExportedProgram`` out: the signature, the state and the graph agree after the folds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from fxfuse import Report
from fxfuse.rules import DEFAULT_RULES
from fxfuse.rules.drop_noops import drop_noops
from tests.forms.programs import assert_program_fuses, fused, names, program, saved_and_loaded
from tests.support.graph_reading import called, count_norms
from tests.support.helpers import Model, assert_equal, run, trained, values
from tests.support.samples import only

IMAGE = (2, 3, 6, 6)


class Small(Model):
    """One norm that goes, and one that stays."""

    def forward(self, x: Tensor) -> Tensor:
        return self.stays(torch.relu(self.bn(self.conv(x))))


def small() -> nn.Module:
    return trained(Small(conv=nn.Conv2d(3, 4, 3, bias=False), bn=nn.BatchNorm2d(4), stays=nn.BatchNorm2d(4)))


def test_signature_and_state_right_after_the_pass(decomposed: bool) -> None:
    result = assert_program_fuses(small(), values(*IMAGE), folds=1, decomposed=decomposed)
    stays = [f"stays.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert names(result) == {
        "parameters": ["conv.weight", "stays.weight", "stays.bias", "conv.bias"],
        "buffers": stays[2:],
        "constants": [],
        "state": ["conv.weight", "conv.bias", *stays],
    }


def test_what_is_not_folded_is_shared_and_the_new_bias_is_a_parameter() -> None:
    given = program(small(), values(*IMAGE))
    result = fused(given)
    for name, tensor in result.state_dict.items():
        assert (given.state_dict.get(name) is tensor) == name.startswith("stays"), name
    assert isinstance(result.state_dict["conv.bias"], nn.Parameter)
    assert isinstance(result.state_dict["conv.weight"], nn.Parameter)
    assert result.state_dict["conv.bias"].requires_grad


def test_placeholders_stand_in_the_order_of_the_signature(decomposed: bool) -> None:
    result = fused(program(small(), values(*IMAGE), decomposed=decomposed))
    placeholders = [node.name for node in result.graph.nodes if node.op == "placeholder"]
    assert placeholders == [spec.arg.name for spec in result.graph_signature.input_specs]
    assert all("val" in node.meta for node in result.graph.nodes if node.op == "placeholder")
    output = next(node for node in result.graph.nodes if node.op == "output")
    assert [node.name for node in output.args[0]] == [s.arg.name for s in result.graph_signature.output_specs]


def test_what_belonged_to_the_program_is_still_there() -> None:
    given = program(small(), values(*IMAGE))
    result = fused(given)
    assert result.call_spec == given.call_spec
    assert result.range_constraints == given.range_constraints
    assert [entry.fqn for entry in result.module_call_graph] == [entry.fqn for entry in given.module_call_graph]
    assert result.dialect == given.dialect
    assert result.example_inputs is given.example_inputs


def test_save_and_load(decomposed: bool) -> None:
    model, x = small(), values(*IMAGE)
    result = assert_program_fuses(model, x, folds=1, decomposed=decomposed)
    loaded = saved_and_loaded(result)
    assert_equal(run(model, (x,)), run(loaded.module(), (x,)))
    assert names(loaded) == names(result)
    assert not Report.of(fused(loaded)).folded


def test_a_loaded_program_is_fused() -> None:
    model, x = small(), values(*IMAGE)
    result = fused(saved_and_loaded(program(model, x)))
    assert len(Report.of(result).folded) == 1
    assert_equal(run(model, (x,)), run(result.module(), (x,)))


def test_decompositions_of_the_fused_program() -> None:
    model, x = small(), values(*IMAGE)
    core = fused(program(model, x)).run_decompositions()
    assert_equal(run(model, (x,)), run(core.module(), (x,)))
    assert count_norms(core.graph_module) == 1
    assert not Report.of(fused(core)).folded


def test_unflattening_of_the_fused_program(decomposed: bool) -> None:
    model, x = trained(nn.Sequential(small(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))), values(*IMAGE)
    result = assert_program_fuses(model, x, folds=3, decomposed=decomposed)
    assert_equal(run(model, (x,)), run(torch.export.unflatten(result), (x,)))


# -- batches of any size


class Residual(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


def resnet() -> nn.Module:
    """A small net of residual blocks, a pool and a classifier."""

    def block(channels: int, more: int) -> nn.Module:
        return Residual(
            conv1=nn.Conv2d(channels, more, 3, stride=2, padding=1, bias=False),
            bn1=nn.BatchNorm2d(more),
            conv2=nn.Conv2d(more, more, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(more),
            down=nn.Sequential(nn.Conv2d(channels, more, 1, stride=2), nn.BatchNorm2d(more)),
        )

    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.BatchNorm1d(5))
    return trained(nn.Sequential(block(3, 4), block(4, 8), *head))


def assert_any_batch(model: nn.Module, x: Tensor, *, folds: int, decomposed: bool) -> None:
    given = torch.export.export(model, (x,), dynamic_shapes=({0: Dim("batch", min=1, max=64)},))
    given = given.run_decompositions() if decomposed else given
    result = fused(given)
    assert len(Report.of(result).folded) == folds
    assert count_norms(result.graph_module) == 0
    assert result.range_constraints == given.range_constraints
    assert list(map(str, result.range_constraints.values())) == ["VR[1, 64]"]
    for version in (result, saved_and_loaded(result)):
        for batch in (1, 4, 7):
            other = torch.randn(batch, *x.shape[1:], dtype=x.dtype)
            assert_equal(run(model, (other,)), run(version.module(), (other,)), rtol=1e-11)


def test_any_batch(decomposed: bool) -> None:
    assert_any_batch(resnet(), values(2, 3, 9, 9), folds=7, decomposed=decomposed)


@pytest.mark.slow
def test_any_batch_of_resnet50(decomposed: bool) -> None:
    models = pytest.importorskip("torchvision.models")
    model = trained(models.resnet50(weights=None))
    assert_any_batch(model, values(2, 3, 64, 64), folds=53, decomposed=decomposed)


# -- options


def test_a_program_without_norms(decomposed: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double().eval()
    result = assert_program_fuses(model, values(*IMAGE), folds=0, decomposed=decomposed)
    assert not Report.of(result).decisions


def test_no_rules(decomposed: bool) -> None:
    given = program(small(), values(*IMAGE), decomposed=decomposed)
    result = fused(given, rules=[])
    assert not Report.of(result).folded
    assert called(result.graph_module) == called(given.graph_module)
    assert list(result.state_dict) == list(given.state_dict)


def test_some_rules() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)))
    given, x = program(model, values(*IMAGE)), values(*IMAGE)
    assert called(fused(given, rules=[drop_noops]).graph_module) == ["conv2d.default", "batch_norm.default"]
    others = [rule for rule in DEFAULT_RULES if rule is not drop_noops]
    result = fused(given, rules=others)
    assert called(result.graph_module) == ["conv2d.default", "dropout.default"]
    assert_equal(run(model, (x,)), run(result.module(), (x,)))


def test_example_inputs_are_compared() -> None:
    model, x = small(), values(*IMAGE)
    result = fused(program(model, x), example_inputs=x)
    assert only(Report.of(result).folded).path == "bn"
    assert_equal(run(model, (x,)), run(result.module(), (x,)))
