"""Models before and after the pass: time, batch norms, error.

Three variants of a model are timed in turn, in one loop: as it is, fused, and with its norms removed
outright, which computes something else but shows what a fold could save at most. A fourth one is lowered, on request.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from fxfuse import fx_fuse, lower
from fxfuse.cli import models
from fxfuse.cli.measure import count_norms, finish, ratio, time_in_turn
from fxfuse.modules.comparison import difference
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class Settings:
    """What to measure, and for how long.

    Attributes:
        models: names that `models.find` knows.
        batches: the batch sizes, a row of the table for each.
        threads: of torch; None for torch's own choice.
        dtype: of the weights and the input while the models are timed.
        device: where they are timed; the pass and the error are measured on the CPU.
        channels_last: whether they are timed in that memory format.
        repeats: how many rounds are timed; None to go on for `seconds`.
        seconds: the time for one row, unless `repeats` is given.
        input_size: the shape of one sample; None for what suits the model.
        lower: whether the fused model is timed with its kernels too.
    """

    models: tuple[str, ...] = models.DEFAULT_MODELS
    batches: tuple[int, ...] = (1, 32)
    threads: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    channels_last: bool = False
    repeats: int | None = None
    seconds: float = 10.0
    input_size: tuple[int, ...] | None = None
    lower: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON, with the version of torch and the threads that a time depends on."""
        facts = {"dtype": _name(self.dtype), "threads": self.threads or torch.get_num_threads()}
        return {**asdict(self), **facts, "torch": torch.__version__}


@dataclass(frozen=True)
class Row:
    """What was measured on one model at one batch size.

    Times are medians over the rounds.  A speed-up is the median of the ratios within each round, and so
    need not be the ratio of two medians.  The bound is the model without its norms; None where it does not
    run so.  The lowered model is None where it was not asked for.
    """

    model: str
    batch: int
    before_ms: float
    after_ms: float
    speed_up: float
    bound_ms: float | None
    bound_speed_up: float | None
    norms_before: int
    norms_after: int
    error: float
    pass_seconds: float
    lowered_ms: float | None = None
    lowered_speed_up: float | None = None


@dataclass(frozen=True)
class Subject:
    """A model in its variants, and what does not depend on the batch size."""

    name: str
    variants: dict[str, nn.Module]
    size: tuple[int, ...]
    norms_before: int
    norms_after: int
    error: float
    pass_seconds: float


def measure(settings: Settings) -> Iterator[Row]:
    """Measure model by model, with a progress bar on stderr.

    Raises:
        FuseError: a model is not known, cannot be built, or does not run on its input.
    """
    tqdm = models.need("tqdm").tqdm
    factories = {name: models.find(name) for name in settings.models}
    fx_fuse(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval())  # imports are no part of a pass
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    layout = "{l_bar}{bar}| {elapsed} elapsed, {remaining} left"
    total = len(factories) * len(settings.batches)
    try:
        with tqdm(total=total, file=sys.stderr, bar_format=layout, leave=False) as bar:
            for name, factory in factories.items():
                bar.set_description(f"{name}: fusing")
                subject = _prepare(name, factory, settings)
                for batch in settings.batches:
                    bar.set_description(f"{name}, batch {batch}")
                    yield _time(subject, batch, settings, bar.update)
    finally:
        torch.set_num_threads(threads)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lowered = any(row.lowered_ms is not None for row in rows)
    more = ("lowered", "speed-up") if lowered else ()
    headers = ("model", "batch", "before", "after", "speed-up", *more, "bound", "speed-up", "norms", "error", "pass")
    align = ("left", *["right"] * (len(headers) - 1))
    cells = [_cells(row, lowered=lowered) for row in rows]
    return tabulate(cells, headers, disable_numparse=True, colalign=align)


def _cells(row: Row, *, lowered: bool) -> tuple[str, ...]:
    """A row as it is printed."""
    kernels = _pair(row.lowered_ms, row.lowered_speed_up) if lowered else ()
    return (
        row.model,
        str(row.batch),
        f"{row.before_ms:.1f} ms",
        f"{row.after_ms:.1f} ms",
        f"{row.speed_up:.2f}x",
        *kernels,
        *_pair(row.bound_ms, row.bound_speed_up),
        f"{row.norms_before} -> {row.norms_after}",
        f"{row.error:.1e}",
        f"{row.pass_seconds:.2f} s",
    )


def _pair(milliseconds: float | None, speed_up: float | None) -> tuple[str, ...]:
    """A time and a speed-up as they are printed."""
    return ("-", "-") if milliseconds is None else (f"{milliseconds:.1f} ms", f"{speed_up or 0:.2f}x")


def _prepare(name: str, factory: Callable[[], nn.Module], settings: Settings) -> Subject:
    """Build a model and fuse it; its norms are counted, and its outputs compared, in float32 on the CPU."""
    before = models.build(name, factory).float()
    models.randomize(before)
    if settings.channels_last:
        _to_channels_last(before)
    start = time.perf_counter()
    after = fx_fuse(before)
    pass_seconds = time.perf_counter() - start
    size = settings.input_size or models.input_size(before)
    sample = _sample(size, settings.batches[0], torch.float32, channels_last=settings.channels_last)
    with _running(name, sample):
        error = difference(before(sample), after(sample))
        norms = count_norms(before, sample), count_norms(after, sample)
    if (settings.device, settings.dtype) != ("cpu", torch.float32):
        before = before.to(settings.device, settings.dtype)
        after = fx_fuse(before)
    variants = {"before": before, "after": after, **_bound(before, sample.to(settings.device, settings.dtype))}
    if settings.lower:
        variants["lowered"] = lower(after)
    return Subject(name, variants, size, *norms, error, pass_seconds)


def _bound(model: nn.Module, sample: Tensor) -> dict[str, nn.Module]:
    """The model without its norms, unless something in it cannot do without them."""
    bare = models.without_norms(model)
    try:
        with torch.inference_mode():
            bare(sample)
    except Exception:  # noqa: BLE001 - the model is a stranger's, and its code may fail in any way
        return {}
    return {"bound": bare}


@contextlib.contextmanager
def _running(name: str, sample: Tensor) -> Iterator[None]:
    """Inference mode, in which an error of the model becomes one sentence."""
    try:
        with torch.inference_mode():
            yield
    except Exception as problem:
        raise FuseError(
            f'"{name}" does not run on {_name(sample.dtype)} of shape {tuple(sample.shape)}'
            f" ({models.first_line(problem)}); --input-size sets another shape"
        ) from problem


def _time(subject: Subject, batch: int, settings: Settings, tick: Callable[[float], object]) -> Row:
    """Time the variants of ``subject`` at one batch size."""
    sample = _sample(subject.size, batch, settings.dtype, channels_last=settings.channels_last).to(settings.device)
    runs = {name: functools.partial(finish, model, sample) for name, model in subject.variants.items()}
    with _running(subject.name, sample):
        times = time_in_turn(runs, settings.repeats, settings.seconds, tick)
    speed_up = {name: ratio(times["before"], mine) for name, mine in times.items()}
    medians = {name: statistics.median(mine) for name, mine in times.items()}
    return Row(
        model=subject.name,
        batch=batch,
        before_ms=medians["before"],
        after_ms=medians["after"],
        speed_up=speed_up["after"],
        bound_ms=medians.get("bound"),
        bound_speed_up=speed_up.get("bound"),
        norms_before=subject.norms_before,
        norms_after=subject.norms_after,
        error=subject.error,
        pass_seconds=subject.pass_seconds,
        lowered_ms=medians.get("lowered"),
        lowered_speed_up=speed_up.get("lowered"),
    )


def _sample(size: tuple[int, ...], batch: int, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """A random input; the same for the same arguments."""
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(batch, *size, generator=draw).to(dtype)
    return sample.contiguous(memory_format=torch.channels_last) if channels_last else sample


def _to_channels_last(model: nn.Module) -> None:
    """Convert the weights in place."""
    try:
        model.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise FuseError(f"the model has no channels-last form ({models.first_line(error)})") from error


def _name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
