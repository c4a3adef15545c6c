"""The rows of the table, each with all samples of it: a new row is drawn as soon as it has a sample."""

from __future__ import annotations

from typing import Any

import torch

from tests.operators.calls import FirstItem
from tests.operators.sample import Sample
from tests.operators.samples import WITH_ROLE, samples
from tests.operators.samples.norms import NEVER_FOLDED
from tests.support.samples import parameter, randn


def name(target: Any) -> str:
    """A name of what is called that says which of several alike it is."""
    if isinstance(target, str):
        return f"x.{target}"
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"{target.__module__ or 'torch'}.{target.__name__}"


OF_NUMBERS = {sample.target for sample in samples() if not sample.x.is_floating_point()}
"""What reads the numbers of rows, which no other row gives: embeddings."""


def _rows() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name(target): [] for target in WITH_ROLE}
    assert len(found) == len(WITH_ROLE), "two rows of one name"
    for sample in (*samples(), *_never_folded()):
        if sample.target not in OF_NUMBERS:
            found[name(sample.target)].append(sample)
    return {key: listed for key, listed in found.items() if listed}


def _never_folded() -> list[Sample]:
    """Norms by the statistics of the batch, as decompositions write them."""
    constants = (parameter(4, seed=2), parameter(4, seed=3))
    running = (randn(4), randn(4, seed=1).abs() + 0.3)
    aten, x = torch.ops.aten, randn(3, 4, 5)
    calls = (
        FirstItem(aten._native_batch_norm_legit_functional.default, *constants, *running, True, 0.1, 0.2),
        FirstItem(aten._native_batch_norm_legit.no_stats, *constants, True, 0.1, 0.2),
    )
    assert {call.function for call in calls} == NEVER_FOLDED
    return [Sample(call.eval(), call.function, x, "AffineSource") for call in calls]


ROWS = _rows()
