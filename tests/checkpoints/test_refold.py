"""``refold`` gives, bit for bit, what fusing again gives."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

from fxfuse import FuseError, Report, fx_fuse, lower, refold
from fxfuse.extend import Graph, Linear, Plan, Write
from tests.checkpoints.models import IMAGE, MODELS, Pooled, conv, made, norm, other
from tests.support.helpers import trained, values

if TYPE_CHECKING:
    from torch import fx

    from tests.support.helpers import Structure


def state_of(fused: Any) -> dict[str, Tensor]:
    state = fused.state_dict
    return dict(state() if callable(state) else state)


def assert_identical(one: Any, other: Any) -> None:
    first, second = state_of(one), state_of(other)
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert (tensor.dtype, tensor.stride()) == (second[name].dtype, second[name].stride())


@pytest.mark.parametrize("name", MODELS)
def test_refolding_is_fusing_again(name: str, structure: Structure) -> None:
    fused, retrained = fx_fuse(made(name, 0), structure=structure), made(name, 1)
    again, x = fx_fuse(retrained, structure=structure), values(*IMAGE)
    for weights in (retrained, retrained.state_dict()):
        assert refold(fused, weights) is fused
        assert_identical(fused, again)
    assert torch.equal(fused(x), again(x))


@pytest.mark.parametrize("name", ["chain", "branches", "standardised"])
def test_exported_programs(name: str) -> None:
    x, retrained = (values(*IMAGE),), made(name, 1)
    program = fx_fuse(export(made(name, 0), x))
    assert_identical(refold(program, retrained.state_dict()), fx_fuse(export(retrained, x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_orders_in_memory(dtype: torch.dtype, order: torch.memory_format) -> None:
    model, retrained = (made("chain", seed).to(dtype).to(memory_format=order) for seed in (0, 1))
    fused = fx_fuse(model)
    contiguous = {name: tensor.contiguous() for name, tensor in retrained.state_dict().items()}
    assert_identical(refold(fused, contiguous), fx_fuse(retrained))


def test_nothing_else_changes() -> None:
    model, retrained = made("branches", 0), made("branches", 1)
    fused = fx_fuse(model)
    kept = copy.deepcopy(fx_fuse(model).state_dict())
    before, theirs = copy.deepcopy(model.state_dict()), copy.deepcopy(retrained.state_dict())
    lowered = lower(fused)
    refold(fused, retrained)
    assert fused.get_parameter("head.weight").data_ptr() == retrained.get_parameter("head.weight").data_ptr()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in retrained.state_dict().items())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in lowered.state_dict().items())


def test_a_lowered_model_packs_its_weights_again() -> None:
    model, retrained = (made("chain", seed).float() for seed in (0, 1))
    x = values(*IMAGE).float()
    fast = lower(fx_fuse(model), x)
    refold(fast, retrained)
    expected = fx_fuse(retrained)
    torch.testing.assert_close(fast(x), expected(x), rtol=1e-4, atol=1e-4)
    assert_identical(fast, expected)


def test_copies_pickles_and_converted_models_carry_the_plan() -> None:
    fused, retrained = fx_fuse(made("chain", 0)), made("chain", 1)
    again = fx_fuse(retrained)
    assert_identical(refold(copy.deepcopy(fused), retrained), again)
    assert_identical(refold(pickle.loads(pickle.dumps(fused)), retrained), again)
    assert_identical(refold(fused.float(), retrained), again.float())


def test_tied_tensors_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.last = nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.norm(self.conv(torch.relu(self.first(x))))))

    model = trained(Tied())
    fused, retrained = fx_fuse(model), other(model, 1)
    refold(fused, {name: t for name, t in retrained.state_dict().items() if name != "last.weight"})
    assert fused.get_parameter("last.weight") is fused.get_parameter("first.weight")
    torn = {**retrained.state_dict(), "last.weight": torch.zeros(4, 4).double()}
    with pytest.raises(FuseError, match=r"first.weight and last.weight were one tensor .* and are two here"):
        refold(fused, torn)


def test_gradients_are_asked_for_as_before() -> None:
    model = made("chain", 0)
    model.requires_grad_(requires_grad=False)
    fused = refold(fx_fuse(model), made("chain", 1))
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(p.requires_grad for p in refold(fx_fuse(made("chain", 0)), made("chain", 1)).parameters())


def test_a_sign_that_decided_a_fold_is_looked_at_again() -> None:
    model = trained(Pooled(conv=conv(), pool=nn.MaxPool2d(2), norm=norm()))
    with torch.no_grad():
        model.norm.weight.abs_()
    fused, turned = fx_fuse(model), other(model, 1)
    before = copy.deepcopy(fused.state_dict())
    assert Report.of(fused).folded
    assert_identical(refold(copy.deepcopy(fused), turned), fx_fuse(turned))
    with torch.no_grad():
        turned.get_parameter("norm.weight")[1] *= -1
    with pytest.raises(
        FuseError, match=r"would fold in another way with these values of .*norm.weight.*fuse the model"
    ):
        refold(fused, turned)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fused.state_dict().items())
    with pytest.raises(FuseError, match="would fold in another way"):
        refold(fx_fuse(turned), model)  # what was refused for its sign would fold now


def test_rules_of_the_users_own_are_recorded_too() -> None:
    def halve(graph: Graph, node: fx.Node) -> Plan | None:
        if not graph.plays(node, Linear) or bool((graph.read(node).tensor("weight") == 7).all()):
            return None
        call = graph.read(node)
        return Plan(writes=(Write(call, {"weight": call.tensor("weight") / 2}),))

    model = nn.Sequential(nn.Linear(4, 2)).eval()
    fused, retrained = fx_fuse(model, rules=[halve]), other(model, 1)
    assert torch.equal(refold(fused, retrained).get_parameter("0.weight"), retrained.get_parameter("0.weight") / 2)
    with torch.no_grad():
        retrained.get_parameter("0.weight").fill_(7)
    with pytest.raises(FuseError, match="would fold in another way"):
        refold(fused, retrained)


def test_what_leaves_torch_is_no_part_of_a_plan() -> None:
    numpy = pytest.importorskip("numpy")

    def outside(graph: Graph, node: fx.Node) -> Plan | None:
        if not graph.plays(node, Linear):
            return None
        call = graph.read(node)
        doubled = torch.from_numpy(numpy.asarray(call.tensor("weight").detach().numpy()) * 2)
        return Plan(writes=(Write(call, {"weight": doubled}),))

    model = nn.Sequential(nn.Linear(4, 2)).eval()
    fused = fx_fuse(model, rules=[outside])
    with pytest.raises(FuseError, match=r"computed where that could not be recorded.*nothing was changed"):
        refold(fused, other(model, 1))


def test_models_that_read_the_version_of_a_state_dict() -> None:
    class Versioned(nn.Sequential):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *args: Any) -> None:
            assert metadata.get("version") == 2
            super()._load_from_state_dict(state, prefix, metadata, *args)

    model = trained(Versioned(conv(), norm()))
    fused, retrained = fx_fuse(model, structure="module"), other(model, 1)
    assert_identical(refold(fused, retrained), fx_fuse(retrained, structure="module"))


def test_a_model_that_does_not_take_its_weights_keeps_those_it_has() -> None:
    class Picky(nn.Sequential):
        picky = False

        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            result = super().load_state_dict(*args, **kwargs)
            if self.picky:
                self.picky = False
                raise ValueError("not today")
            return result

    model = trained(Picky(conv(), norm()))
    fused = fx_fuse(model, structure="module")
    before = copy.deepcopy(fused.state_dict())
    fused.picky = True
    with pytest.raises(FuseError, match=r"did not take its new weights \(ValueError: not today\); nothing was changed"):
        refold(fused, other(model, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in fused.state_dict().items())


def test_a_fresh_norm_before_a_flatten_asks_nothing_about_its_values() -> None:
    def head() -> nn.Module:
        layers = nn.AdaptiveAvgPool2d(1), nn.LayerNorm([4, 1, 1]), nn.Flatten(1), nn.Linear(4, 3)
        return nn.Sequential(*layers).double().eval()

    x, retrained = values(*IMAGE), other(head(), 1)
    fused = fx_fuse(export(head(), (x,)))
    assert [decision.path for decision in Report.of(fused).folded] == ["1"]
    assert_identical(refold(fused, retrained.state_dict()), fx_fuse(export(retrained, (x,))))
