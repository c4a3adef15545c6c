"""The benchmark: what it counts and compares.  Times are never compared: a slow machine is no failure."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import FuseError
from fxfuse.cli import bench, measure, models, plots, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = {"batches": (1, 2), "repeats": 1, "input_size": (3, 8, 8)}
ROW = bench.Row("net", 1, 2.0, 1.0, 2.0, 0.9, 2.2, norms_before=20, norms_after=0, error=1e-7, pass_seconds=0.1)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


class NeedsItsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm.num_features


class NormWithActivation(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class FunctionalNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, torch.zeros(3), torch.ones(3))


def run_bench(*names: str, **changes: object) -> list[bench.Row]:
    return list(bench.measure(settings.Bench(names, **{**SETTINGS, **changes})))  # type: ignore[arg-type]


def test_a_row_for_each_batch_size_with_norms_and_error() -> None:
    rows = run_bench(f"{__name__}:small")
    assert [row.batch for row in rows] == [1, 2]
    for row in rows:
        assert (row.norms_before, row.norms_after) == (2, 0)
        assert 0 <= row.error < 1e-5
        assert row.norms_removed_ms is not None
        assert min(row.before_ms, row.after_ms, row.norms_removed_ms, row.speed_up, row.pass_seconds) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_and_channels_last(dtype: str) -> None:
    (row,) = run_bench(f"{__name__}:small", batches=(2,), dtype=dtype, channels_last=True)
    assert row.norms_after == 0
    assert row.error < 1e-5


def test_a_model_that_cannot_do_without_its_norms_says_nothing_of_their_cost() -> None:
    (row,) = run_bench(f"{__name__}:NeedsItsNorm", batches=(1,))
    assert row.norms_removed_ms is None
    assert "  -  " in bench.table([row])


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    run_bench(f"{__name__}:small", threads=before + 1)
    assert torch.get_num_threads() == before


def test_a_wrong_input_size_is_told() -> None:
    with pytest.raises(FuseError, match=r"does not run on float32 of shape \(1, 5, 8, 8\).*--input-size"):
        run_bench(f"{__name__}:small", input_size=(5, 8, 8))


def test_settings_go_into_json() -> None:
    facts = bench.facts(settings.Bench(("a",), dtype="bfloat16", threads=3))
    assert json.loads(json.dumps(facts))["dtype"] == "bfloat16"
    assert (facts["threads"], facts["torch"]) == (3, torch.__version__)


def test_the_table_has_a_line_for_each_row() -> None:
    headers, _, line = bench.table([ROW]).splitlines()
    assert headers.split()[:4] == ["model", "batch", "before", "after"]
    assert line.split()[:7] == ["net", "1", "2.0", "ms", "1.0", "ms", "2.00x"]
    assert "20 -> 0" in line


@pytest.mark.parametrize("row", [ROW, dataclasses.replace(ROW, lowered_ms=0.5, lowered_speed_up=4.0)])
def test_no_two_columns_have_one_name(row: bench.Row) -> None:
    names = re.split("  +", bench.table([row]).splitlines()[0].strip())
    assert len(set(names)) == len(names)
    assert "norms removed" in names


@pytest.mark.parametrize("name", ["chart.png", "chart.svg"])
def test_the_chart_is_written(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    plots.plot_speed_ups([ROW, bench.Row(**{**ROW.__dict__, "norms_removed_speed_up": None})], tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000


def test_a_chart_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(FuseError, match="cannot be written"):
        plots.plot_speed_ups([ROW], tmp_path / "missing" / "chart.png")


def test_variants_take_turns_and_each_round_starts_with_another() -> None:
    seen: list[str] = []
    ticks: list[float] = []
    runs: dict[str, Callable[[], object]] = {name: (lambda name=name: seen.append(name)) for name in "abc"}  # type: ignore[misc]
    times = measure.time_in_turn(runs, repeats=3, seconds=0, tick=ticks.append)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert sum(ticks) == pytest.approx(1)


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-9, measure.MIN_ROUNDS), (1e9, measure.MAX_ROUNDS)])
def test_the_clock_decides_within_limits(seconds: float, rounds: int) -> None:
    times = measure.time_in_turn({"a": lambda: None}, repeats=None, seconds=seconds, tick=lambda _: None)
    assert len(times["a"]) == rounds


def test_norms_are_counted_where_they_run() -> None:
    sample = torch.zeros(1, 3, 8, 8)
    norm = nn.BatchNorm2d(3).eval()
    assert measure.count_norms(nn.Sequential(norm, norm, FunctionalNorm()), sample) == 3
    assert measure.count_norms(torch.export.export(norm, (sample,)).module(), sample) == 1
    assert measure.count_norms(nn.Conv2d(3, 3, 1), sample) == 0


def test_random_norms_are_far_from_the_identity_and_the_same_each_time() -> None:
    first, second = nn.BatchNorm2d(200), nn.BatchNorm2d(200)
    for norm in first, second:
        models.randomize(norm)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert first.running_mean is not None
    assert first.running_var is not None
    for value in first.running_mean, first.bias, first.weight - 1, first.running_var - 1:
        assert value.abs().mean() > 0.1
    assert 0 < (first.weight < 0).sum() < 50


def test_only_norms_that_were_never_trained_get_random_numbers() -> None:
    fresh, random = models.prepared("own:small", small)
    assert random
    assert not any(map(models._is_fresh, models.norms(fresh).values()))
    state = {name: value.clone() for name, value in fresh.state_dict().items()}
    trained, random = models.prepared("own:trained", lambda: fresh)
    assert not random
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_a_head_of_zeros_would_hide_every_error() -> None:
    head, other, lazy = nn.Linear(4, 3), nn.Linear(4, 3), nn.LazyLinear(3)
    nn.init.zeros_(head.weight)
    before = other.weight.clone()
    models.randomize(nn.Sequential(other, head, lazy, nn.Linear(4, 3, device="meta")))
    assert head.weight.abs().min() > 0
    assert torch.equal(other.weight, before)


def test_a_model_without_its_norms_keeps_their_activations_and_leaves_the_argument_alone() -> None:
    norm = NormWithActivation(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.BatchNorm2d(4)).eval()
    bare = models.without_norms(model)
    kinds = [type(module) for module in bare.modules()]
    assert kinds.count(nn.ReLU) == 1
    assert not models.norms(bare)
    assert model[1] is norm
    sample = torch.randn(1, 3, 4, 4)
    assert torch.equal(bare(sample), F.relu(model[0](sample)))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_shared_norm_is_removed_everywhere(batch: int) -> None:
    norm = nn.BatchNorm1d(3)
    bare = models.without_norms(nn.Sequential(norm, nn.Sequential(norm)).eval())
    sample = torch.randn(batch, 3)
    assert torch.equal(bare(sample), sample)


def test_models_of_torchvision() -> None:
    pytest.importorskip("torchvision")
    (row,) = run_bench("resnet18", batches=(1,), input_size=(3, 64, 64))
    assert (row.norms_before, row.norms_after) == (20, 0)
    assert row.error < 1e-4


def test_parts_of_torchvision_models_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    assert models.norms(models.build("fcn", models.find("fcn_resnet50")))


def test_models_of_timm_know_their_input_size() -> None:
    pytest.importorskip("timm")
    model = models.build("timm", models.find("timm:test_byobnet"))
    assert models.input_size(model) == (3, 160, 160)
    assert models.input_size(nn.Identity()) == (3, 224, 224)


def test_default_models_are_known() -> None:
    pytest.importorskip("torchvision")
    assert [callable(models.find(name)) for name in settings.DEFAULT_MODELS] == [True] * 5
