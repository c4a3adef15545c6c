"""Models that provoke each reason, for ``test_reasons``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from fxfuse import Reason
from fxfuse.extend import DEFAULT_RULES
from tests.report.reason_models import (
    IMAGE,
    Branches,
    Changed,
    Computed,
    Dilated,
    Reads,
    Several,
    Shared,
    Twice,
    Unknown,
    Viewed,
    complex_weight,
    conv_and_norm,
    halves,
    hooked,
    in_object,
    layers,
    net,
    on_meta,
    overflowing,
    promoting,
    proven,
    pruned_in_part,
    statistics,
    training,
    unused,
)
from tests.support.helpers import trained, values
from tests.support.samples import parameter

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Case:
    """A model that provokes a reason, the path of what stays, and words of the sentence."""

    reason: Reason
    make: Callable[[], nn.Module]
    words: tuple[str, ...]
    path: str = "block.norm"
    options: dict[str, Any] = field(default_factory=dict)


TAIL = "block.rest.tail"
CASES = [
    Case(Reason.TRAINING, training, ("training mode", ".eval()"), "0.block.norm"),
    Case(
        Reason.BATCH_STATISTICS,
        lambda: net(layers(last=nn.BatchNorm2d(4, track_running_stats=False))),
        ("track_running_stats=True",),
    ),
    Case(Reason.NOT_LINEAR, lambda: net(layers(nn.ReLU())), ("block.between",)),
    Case(Reason.READ_BY, lambda: proven(nn.GroupNorm(2, 4), nn.Sigmoid()), ("read by",), TAIL),
    Case(
        Reason.ZERO_PADDING,
        lambda: proven(nn.GroupNorm(2, 4), nn.Conv2d(4, 5, 3, padding=1)),
        ("block.rest.m1", "padding_mode='replicate'"),
        TAIL,
    ),
    Case(Reason.LAYOUT, lambda: conv_and_norm(Viewed), ("view in block", ".contiguous()")),
    Case(
        Reason.WOULD_GROW,
        lambda: proven(nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(600), nn.Flatten(), nn.Linear(1440000, 1)),
        ("1,440,000 elements", "block.rest.m2"),
        TAIL,
    ),
    Case(
        Reason.UNKNOWN_SIZE,
        lambda: proven(nn.GroupNorm(2, 4), nn.Flatten(1, 2), nn.Flatten(), nn.Linear(64, 1)),
        ("the axes that are merged", "block.rest.tail"),
        TAIL,
    ),
    Case(Reason.SEVERAL_USES, lambda: conv_and_norm(Several), ("block.conv", "block")),
    Case(Reason.SHARED, lambda: conv_and_norm(Shared), ("block.conv", "allow_copies"), options={"allow_copies": False}),
    Case(Reason.HOOKED, hooked, ("block.conv", "remove")),
    Case(Reason.COMPUTED, lambda: conv_and_norm(Computed, weight=parameter(4, 3, 3, 3)), ("weight", "block")),
    Case(Reason.MUTATED, lambda: conv_and_norm(Changed), ("running_mean of block.norm", "in place")),
    Case(
        Reason.NOT_PER_CHANNEL,
        lambda: net(trained(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm2d(3)))),
        ("block.0", "axis"),
        "block.1",
    ),
    Case(
        Reason.UNKNOWN_SHAPE,
        lambda: net(Unknown(weight=parameter(4, 3, 3, 3), **statistics()).eval()),
        ("example_inputs", "block"),
        "block",
        {"guards": False},
    ),
    Case(
        Reason.MISALIGNED,
        lambda: conv_and_norm(Dilated, wide=nn.Conv2d(3, 4, 2, dilation=2)),
        ("block.conv, block.wide", "dilations 1 and 2", "centre"),
        "block",
    ),
    Case(Reason.NOT_FLOATING, complex_weight, ("complex64", "block.conv")),
    Case(Reason.MALFORMED, pruned_in_part, ("running_mean of shape (3,)", "block.norm", "may not run")),
    Case(Reason.PROMOTES, promoting, ("float32", "float64")),
    Case(Reason.NOT_FINITE, overflowing, ("block.conv", "float16")),
    Case(Reason.NO_VALUES, on_meta, ("meta", "block.conv")),
    Case(Reason.OPAQUE, lambda: conv_and_norm(Branches), ("block", "branches on a value", "submodule of their own")),
    Case(
        Reason.REACHED_INTO,
        lambda: net(Reads(inner=layers())),
        ("block.features", "block.inner.conv"),
        "block.inner.norm",
        {"structure": "module"},
    ),
    Case(Reason.BOUND, in_object, ("block.held", "take the object away"), "block.inner.norm"),
    Case(Reason.NOT_ASKED, lambda: net(layers()), ("add 'fold_upstream'",), options={"rules": ["merge_chain"]}),
    Case(Reason.NOT_CALLED, unused, ("remove it",), "norm"),
    Case(
        Reason.DIFFERS,
        lambda: net(layers()),
        ("relative error", "example inputs"),
        options={"example_inputs": values(*IMAGE), "rules": [*DEFAULT_RULES, halves]},
    ),
    Case(Reason.OWN_FORWARD, lambda: conv_and_norm(Twice), ("structure='graph'",), options={"structure": "module"}),
]
