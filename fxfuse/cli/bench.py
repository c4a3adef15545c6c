"""Models before and after the pass: time, batch norms, error.

Three variants of a model are timed in turn, in one loop: as it is, fused, and with its norms removed
outright, which computes something else and shows what they cost. A fourth one is lowered, on request.
"""

from __future__ import annotations

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
from fxfuse.cli import failures, models
from fxfuse.cli.failures import SIZE
from fxfuse.cli.measure import count_norms, finish, ratio, time_in_turn
from fxfuse.cli.terminal import BAR
from fxfuse.modules.comparison import difference
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fxfuse.cli.settings import Bench


def facts(settings: Bench) -> dict[str, Any]:
    """Return the settings as plain data, for JSON, with the version of torch and the threads that a time depends on."""
    return {**asdict(settings), "threads": settings.threads or torch.get_num_threads(), "torch": torch.__version__}


@dataclass(frozen=True)
class Row:
    """What was measured on one model at one batch size.

    Times are medians over the rounds.  A speed-up is the median of the ratios within each round, and so
    need not be the ratio of two medians.  ``norms_removed`` is the model without its norms; None where it does
    not run so.  The lowered model is None where it was not asked for.
    """

    model: str
    batch: int
    before_ms: float
    after_ms: float
    speed_up: float
    norms_removed_ms: float | None
    norms_removed_speed_up: float | None
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


def measure(settings: Bench) -> Iterator[Row]:
    """Measure model by model, with a progress bar on stderr.

    Raises:
        FuseError: a model is not known, cannot be built, or does not run on its input.
    """
    tqdm = models.need("tqdm").tqdm
    if settings.weights is not None and len(settings.models) != 1:
        raise FuseError(f"--weights are those of one model, and there are {len(settings.models)}; nothing was measured")
    factories = {name: models.find(name) for name in settings.models}
    fx_fuse(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval())  # imports are no part of a pass
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    total = len(factories) * len(settings.batches)
    try:
        with tqdm(total=total, file=sys.stderr, bar_format=BAR, leave=False) as bar:
            for name, factory in factories.items():
                bar.set_description(f"{name}: fusing")
                subject = _prepare(name, factory, settings)
                for batch in settings.batches:
                    bar.set_description(f"{name}, batch {batch}")
                    yield _time(subject, batch, settings, lambda done: bar.update(min(done, bar.total - bar.n)))
    finally:
        torch.set_num_threads(threads)


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """The rows as text; in two tables where one is wider than the lines may be."""
    lowered = any(row.lowered_ms is not None for row in rows)
    headers = (
        "model",
        "batch",
        "before",
        "after",
        *(["lowered"] if lowered else []),
        "norms removed",
        "norms",
        "error",
        "pass",
    )
    cells = [_cells(row, lowered=lowered) for row in rows]
    whole = _aligned(headers, cells)
    if width is None or max(map(len, whole.splitlines())) <= width:
        return whole
    times, others = slice(0, -3), [0, -3, -2, -1]  # the last three are the same for each batch size
    told = dict.fromkeys(tuple(row[n] for n in others) for row in cells)
    parts = _aligned(headers[times], [row[times] for row in cells]), _aligned([headers[n] for n in others], list(told))
    return "\n\n".join(parts)


def _aligned(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of numbers, with a name in front."""
    return tabulate(cells, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _cells(row: Row, *, lowered: bool) -> tuple[str, ...]:
    """A row as it is printed."""
    kernels = (_timed(row.lowered_ms, row.lowered_speed_up),) if lowered else ()
    return (
        row.model,
        str(row.batch),
        _milliseconds(row.before_ms),
        _timed(row.after_ms, row.speed_up),
        *kernels,
        _timed(row.norms_removed_ms, row.norms_removed_speed_up),
        f"{row.norms_before} -> {row.norms_after}",
        f"{row.error:.1e}",
        f"{row.pass_seconds:.2f} s",
    )


def _timed(milliseconds: float | None, speed_up: float | None) -> str:
    """A time with its speed-up as it is printed."""
    return "-" if milliseconds is None else f"{_milliseconds(milliseconds)} {speed_up or 0:5.2f}x"


def _milliseconds(time: float) -> str:
    """A time as it is printed; what takes less than one has more digits."""
    return f"{time:.1f} ms" if time >= 1 else f"{time:.3f} ms"


def _prepare(name: str, factory: Callable[[], nn.Module], settings: Bench) -> Subject:
    """Build a model and fuse it; its norms are counted, and its outputs compared, in float32 on the CPU."""
    before = models.prepared(name, factory, settings.weights)[0].float()
    if settings.channels_last:
        _to_channels_last(before)
    start = time.perf_counter()
    after = fx_fuse(before)
    pass_seconds = time.perf_counter() - start
    size = settings.input_size or models.input_size(before)
    sample = _sample(size, settings.batches[0], torch.float32, channels_last=settings.channels_last)
    with failures.running(name, sample, SIZE), torch.inference_mode():
        error = difference(before(sample), after(sample))
        norms = count_norms(before, sample), count_norms(after, sample)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    if (settings.device, dtype) != ("cpu", torch.float32):
        before = before.to(settings.device, dtype)
        after = fx_fuse(before)
    variants = {"before": before, "after": after, **_norms_removed(before, sample.to(settings.device, dtype))}
    if settings.lower:
        variants["lowered"] = lower(after)
    return Subject(name, variants, size, *norms, error, pass_seconds)


def _norms_removed(model: nn.Module, sample: Tensor) -> dict[str, nn.Module]:
    """The model without its norms, unless something in it cannot do without them."""
    bare = models.without_norms(model)
    try:
        with torch.inference_mode():
            bare(sample)
    except Exception:  # noqa: BLE001 - the model is a stranger's, and its code may fail in any way
        return {}
    return {"norms removed": bare}


def _time(subject: Subject, batch: int, settings: Bench, tick: Callable[[float], object]) -> Row:
    """Time the variants of ``subject`` at one batch size."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    sample = _sample(subject.size, batch, dtype, channels_last=settings.channels_last).to(settings.device)
    runs = {name: functools.partial(finish, model, sample) for name, model in subject.variants.items()}
    with failures.running(subject.name, sample, SIZE), torch.inference_mode():
        times = time_in_turn(runs, settings.repeats, settings.seconds, tick)
    speed_up = {name: ratio(times["before"], mine) for name, mine in times.items()}
    medians = {name: statistics.median(mine) for name, mine in times.items()}
    return Row(
        model=subject.name,
        batch=batch,
        before_ms=medians["before"],
        after_ms=medians["after"],
        speed_up=speed_up["after"],
        norms_removed_ms=medians.get("norms removed"),
        norms_removed_speed_up=speed_up.get("norms removed"),
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
        raise FuseError(f"the model has no channels-last form ({failures.first_line(error)})") from error
