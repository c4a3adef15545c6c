"""Operators and rules of one's own: import what they need from here, and from nowhere else in fxfuse.

The names in this file stay; where the code behind them lives may change.  docs/extending.md explains both doors.

Example:
    >>> from torch import nn
    >>> from fxfuse import Report, fx_fuse
    >>> from fxfuse.extend import Identity, register
    >>> class Tap(nn.Module):
    ...     def forward(self, input):
    ...         return input.clone()
    >>> row = register("tap", Identity, arguments=["input"], modules=[Tap])
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), Tap(), nn.BatchNorm2d(8)).eval()
    >>> Report.of(fx_fuse(model)).folded[0].into
    ('0',)
"""

from fxfuse.algebra.affine import Affine
from fxfuse.algebra.linear_map import LinearMap
from fxfuse.graph.graph import Graph
from fxfuse.graph.guard import Guard
from fxfuse.graph.plan import Fold, Merge, Plan, ValueSlice, Write
from fxfuse.operators.activations import Homogeneous
from fxfuse.operators.linear import Convolution, LinearLayer
from fxfuse.operators.noops import Copy, Identity
from fxfuse.operators.passage import Passage
from fxfuse.operators.register import register
from fxfuse.operators.roles import AffineSource, Carrier, Linear
from fxfuse.report.cost import Cost
from fxfuse.report.reasons import Reason, Refusal, require
from fxfuse.rules import DEFAULT_RULES

__all__ = [
    "DEFAULT_RULES",
    "Affine",
    "AffineSource",
    "Carrier",
    "Convolution",
    "Copy",
    "Cost",
    "Fold",
    "Graph",
    "Guard",
    "Homogeneous",
    "Identity",
    "Linear",
    "LinearLayer",
    "LinearMap",
    "Merge",
    "Passage",
    "Plan",
    "Reason",
    "Refusal",
    "ValueSlice",
    "Write",
    "register",
    "require",
]
