"""A sample of every way in which the operations of the table can be called, awkward options included.

One file for each file of ``fxfuse/operators``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fxfuse.operators import OPERATORS
from tests.operators.sample import Sample
from tests.operators.samples import (
    activations,
    axes,
    joins,
    linear,
    matrix_product,
    mixtures,
    noops,
    norm_affines,
    norms,
    permutations,
    pointwise,
    pools,
    reshapes,
    shuffles,
    slices,
    spatial,
    splits,
    sums,
)
from tests.support.helpers import trained

if TYPE_CHECKING:
    from collections.abc import Iterator

# The targets of the rows that play a role; of the others, only facts are known.  Those of packages that need not be
# installed have tests of their own: test_deformable.py.
WITH_ROLE = {t: row for t, row in OPERATORS.items() if row.plays and row.name != "deform_conv2d"}

CARRIERS = (noops, activations, pools, spatial, permutations, axes, reshapes, shuffles, slices, splits)


def samples() -> list[Sample]:
    """All samples, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return list(_samples())


def _samples() -> Iterator[Sample]:
    for file in (linear, matrix_product):
        for model, target, x in file.calls():
            yield Sample(model, target, x, "Linear")
    for model, target, x in (*norms.calls(), *pointwise.calls(), *mixtures.calls()):
        yield Sample(trained(model), target, x, "AffineSource")
    for more in (*CARRIERS, joins, sums, norm_affines):
        yield from more.calls()
