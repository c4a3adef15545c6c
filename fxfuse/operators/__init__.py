"""The operators: one file for each kind, one row of the table for each operation."""

from fxfuse.operator_table import OPERATORS, Operator, register
from fxfuse.operators import (  # importing fills the table
    activations,
    averages,
    axes,
    joins,
    linear,
    moves,
    noops,
    norm_tails,
    norms,
    pieces,
    pointwise,
    regroups,
    shuffles,
    spatial,
    splits,
)

__all__ = [
    "OPERATORS",
    "Operator",
    "activations",
    "averages",
    "axes",
    "joins",
    "linear",
    "moves",
    "noops",
    "norm_tails",
    "norms",
    "pieces",
    "pointwise",
    "register",
    "regroups",
    "shuffles",
    "spatial",
    "splits",
]
