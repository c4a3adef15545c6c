"""Plans are data: saved, loaded and applied without a model."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Plan, Report, fx_fuse
from fxfuse.checkpoints.json_format import decoded, encoded
from tests.checkpoints.models import MODELS, made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.helpers import Structure


def saved(path: Path, name: str = "chain") -> Path:
    Report.of(fx_fuse(made(name, 0))).plan.save(path / "plan.json")
    return path / "plan.json"


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_from_a_file_does_the_same(name: str, structure: Structure, tmp_path: Path) -> None:
    retrained = made(name, 1)
    Report.of(fx_fuse(made(name, 0), structure=structure)).plan.save(tmp_path / "plan.json")
    given = Plan.load(tmp_path / "plan.json").apply(retrained.state_dict())
    expected = fx_fuse(retrained, structure=structure).state_dict()
    assert list(given) == list(expected)
    assert all(torch.equal(tensor, given[key]) for key, tensor in expected.items())


def test_a_plan_holds_no_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(64, 512, 3), nn.BatchNorm2d(512), nn.ReLU(), nn.Linear(400, 300)).eval()
    plan = Report.of(fx_fuse(model)).plan
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").stat().st_size < 4000


class Counting(dict[str, Tensor]):
    """A state dict that says what is read of it, and what of that is still alive."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__(state)
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.read.append(name)
        return super().__getitem__(name)

    def sketch(self, name: str) -> Tensor:
        return super().__getitem__(name).to("meta")


def test_tensors_are_read_one_by_one() -> None:
    plan, state = Report.of(fx_fuse(made("chain", 0))).plan, Counting(made("chain", 1).state_dict())
    stream: Iterator[tuple[str, Any]] = plan.stream(state)
    next(stream)
    weights = [name for name in state.read if name in ("0.weight", "3.weight", "6.weight")]
    assert len(weights) == 1
    assert len(list(stream)) == len(plan.outputs) - 1
    assert len(state.read) == len(set(state.read))


def test_constants_of_the_code_are_part_of_it(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("std", torch.rand(3, 1, 1) + 0.5, persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.conv(x) * 2.5 / self.std)

    model = Scaled().eval()
    Report.of(fx_fuse(model)).plan.save(tmp_path / "plan.json")
    given = Plan.load(tmp_path / "plan.json").apply(model.state_dict())
    assert torch.equal(given["conv.weight"], fx_fuse(model).get_parameter("conv.weight"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 99}, "it is fxfuse plan of version 99, and not fxfuse plan of 1"),
        ({"format": "a letter"}, "cannot be read as a plan"),
        ({"steps": [["aten.from_file.default", ["/etc/passwd"], {"named": {}}, {"tensor": 1}]]}, "computes no tensor"),
        ({"steps": [["os.system.default", ["ls"], {"named": {}}, None]]}, "cannot be read as a plan"),
        ({"outputs": {"unknown tag": 1}}, "cannot be read as a plan"),
    ],
)
def test_other_files_are_no_plans(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FuseError, match=told):
        Plan.load(path)


def test_a_plan_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_text(path.read_text().replace('{"device":"cpu"}', '{"device":"hpu"}'))
    with pytest.raises(FuseError, match=r"The model was fused on hpu, which is not here .* fuse the model here"):
        Plan.load(path).apply(made("chain", 1).state_dict())


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FuseError, match="cannot be read as a plan"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(FuseError, match="could not be written"):
        Report.of(fx_fuse(made("chain", 0))).plan.save(tmp_path / "none" / "plan.json")


@pytest.mark.parametrize(
    "item",
    [torch.float16, torch.strided, torch.channels_last, torch.device("cpu"), [1, 2.5, None, True, "floor"], {"a": [1]}],
    ids=str,
)
def test_arguments_survive_json(item: Any) -> None:
    assert decoded(json.loads(json.dumps(encoded(item)))) == item


@pytest.mark.parametrize(
    "tensor", [torch.rand(2, 3).half(), torch.tensor(2.0).double(), torch.empty(0), torch.arange(3)]
)
def test_constants_survive_json(tensor: Tensor) -> None:
    restored = decoded(json.loads(json.dumps(encoded(tensor))))
    assert torch.equal(restored, tensor)
    assert restored.dtype == tensor.dtype


def test_what_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(FuseError, match="which JSON has no word for"):
        encoded(object())
    with pytest.raises(FuseError, match="is too large for a plan"):
        encoded(torch.zeros(1 << 21))


def test_an_operation_that_is_not_there_is_told_when_it_is_needed(tmp_path: Path) -> None:
    plan = Report.of(fx_fuse(made("chain", 0))).plan
    steps = tuple(step._replace(name="no.such.thing") if step.name == "rounded" else step for step in plan.steps)
    with pytest.raises(
        FuseError, match=r"cannot be carried out here \(LookupError: no.such.thing\); nothing was changed"
    ):
        dataclasses.replace(plan, steps=steps).apply(made("chain", 1).state_dict())
    dataclasses.replace(plan, steps=steps).save(tmp_path / "plan.json")
    with pytest.raises(FuseError, match="cannot be read as a plan"):
        Plan.load(tmp_path / "plan.json")
