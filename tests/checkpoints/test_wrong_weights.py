"""Weights that do not fit: a sentence for each, and nothing is changed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Plan, Report, fx_fuse, refold
from fxfuse.checkpoints.files import read_weights, write_weights
from tests.checkpoints.models import made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

State = dict[str, Tensor]


class Marked(Tensor):
    """A tensor that may mean anything."""


def changed(state: State, name: str, change: Callable[[Tensor], Tensor]) -> State:
    return {**state, name: change(state[name].clone())}


WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "a missing name": (
        lambda s: {n: t for n, t in s.items() if n != "0.weight"},
        r"These are not the weights of the original model: 1 missing \(0.weight\). Nothing was changed",
    ),
    "a name too many": (lambda s: {**s, "9.weight": s["0.weight"]}, r"1 left over \(9.weight\)"),
    "another shape": (
        lambda s: changed(s, "0.weight", lambda t: t[:2]),
        r"0.weight is of shape \(2, 4, 3, 3\) and not \(4, 4, 3, 3\). Nothing was changed",
    ),
    "another dtype": (
        lambda s: changed(s, "0.weight", Tensor.half),
        r"0.weight is torch.float16 and not torch.float64",
    ),
    "the prefix of DDP": (
        lambda s: {f"module.{n}": t for n, t in s.items()},
        r"The names begin with 'module.'.*remove",
    ),
    "the prefix of compile": (
        lambda s: {f"_orig_mod.{n}": t for n, t in s.items()},
        r"begin with '_orig_mod.'.*compile",
    ),
    "two prefixes and more names": (
        lambda s: {**{f"module._orig_mod.{n}": t for n, t in s.items()}, "n_averaged": s["0.bias"]},
        r"begin with 'module._orig_mod.', which a module that holds the model puts before them; pass",
    ),
    "half of the names": (lambda s: dict(list(s.items())[::2]), r"\d+ missing \(.*, and \d+ more\)"),
    "a variance that is no number": (
        lambda s: changed(s, "1.running_var", lambda t: t * float("nan")),
        r"^0.weight, 0.bias of the fused model would hold .* not finite, since 1.running_var hold such numbers",
    ),
    "a negative variance": (
        lambda s: changed(s, "1.running_var", lambda t: -1 - t),
        r"^0.weight, 0.bias of the fused model .* since a variance is below zero, or a number too large",
    ),
    "a scripted model": (lambda _: torch.jit.script(nn.Linear(2, 2)), r"A scripted module has names of its own"),
    "no state dict": (
        lambda _: [1],
        r"a state dict or a model of the original architecture, and got list.*Read a file with torch",
    ),
    "a checkpoint of Lightning": (lambda s: {"state_dict": s, "epoch": 3}, r"pass checkpoint\['state_dict'\]"),
    "no tensor": (lambda s: {**s, "0.weight": 3}, r"0.weight is no tensor but int"),
    "a tensor of a class of its own": (
        lambda s: changed(s, "0.weight", lambda t: t.as_subclass(Marked)),
        r"0.weight is torch.strided of class Marked",
    ),
    "a sparse tensor": (lambda s: changed(s, "0.weight", Tensor.to_sparse), r"0.weight is torch.sparse_coo of class"),
    "a quantized tensor": (
        lambda s: changed(s, "0.weight", lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)),
        r"0.weight is torch.qint8 and not torch.float64",
    ),
    "no values": (lambda s: changed(s, "0.weight", lambda t: t.to("meta")), r"0.weight has no values"),
    "weights of the fused model": (lambda _: fx_fuse(made("chain", 0)).state_dict(), r"weights of the fused model"),
    "another model": (lambda _: nn.Linear(2, 2), r"missing .*2 left over \(weight, bias\)"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_wrong_weights_change_nothing(what: str) -> None:
    spoil, told = WRONG[what]
    fused = fx_fuse(made("chain", 0))
    before = copy.deepcopy(fused.state_dict())
    with pytest.raises(FuseError, match=told):
        refold(fused, spoil(dict(made("chain", 1).state_dict())))
    after = fused.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_models_without_a_plan_say_so() -> None:
    with pytest.raises(FuseError, match="carries no report"):
        refold(nn.Linear(2, 2), {})
    with torch.device("meta"):
        unfilled = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = nn.Sequential(nn.Linear(2, 2), unfilled).eval()
    with pytest.raises(FuseError, match="carries no plan of its weights"):
        refold(fx_fuse(model), model)


def test_a_changed_model_is_not_refolded() -> None:
    fused = fx_fuse(made("chain", 0))
    fused.register_buffer("more", torch.ones(1))
    with pytest.raises(FuseError, match="is not as fx_fuse returned it"):
        refold(fused, made("chain", 1))


class Reduces:
    """What a pickle that runs code would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("it ran",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = made("chain", 1).state_dict()
    torch.save({"weight": Reduces()}, tmp_path / "pickled.pt")
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:900])
    torch.save([1], tmp_path / "list.pt")
    told = {
        "pickled.pt": "holds Python objects, such as a whole model, and not only tensors, so it was not opened",
        "cut.pt": "is damaged, cut off or no file of weights",
        "list.pt": "holds list and no state dict",
        "none.pt": "There is no file",
    }
    for name, sentence in told.items():
        with pytest.raises(FuseError, match=sentence):
            read_weights(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_file_is_no_state_dict(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "scripted.pt"))
    with pytest.raises(FuseError, match=r"is a scripted model.*Save the state_dict\(\) of the original"):
        read_weights(tmp_path / "scripted.pt")


def test_weights_are_written_and_read(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    plan, retrained = Report.of(fx_fuse(made("chain", 0))).plan, made("chain", 1)
    expected = fx_fuse(retrained).state_dict()
    plan.save(tmp_path / "plan.json")
    for name in ("weights.pt", "weights.safetensors"):
        write_weights(tmp_path / name, retrained.state_dict())
        given = Plan.load(tmp_path / "plan.json").apply(read_weights(tmp_path / name))
        assert all(torch.equal(tensor, given[key]) for key, tensor in expected.items())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:99])
    with pytest.raises(FuseError, match="is damaged, cut off or no file of safetensors"):
        read_weights(tmp_path / "cut.safetensors")
    torch.save({"state_dict": retrained.state_dict(), "epoch": 1}, tmp_path / "lightning.ckpt")
    assert read_weights(tmp_path / "lightning.ckpt").keys() == retrained.state_dict().keys()
