"""The operators: one file for each kind, one row of the table for each operation."""

from fxfuse.operator_table import OPERATORS, Operator, register
from fxfuse.operators import (  # importing fills the table
    averages,
    linear,
    moves,
    noops,
    norm_tails,
    norms,
    pointwise,
    regroups,
)

__all__ = [
    "OPERATORS",
    "Operator",
    "averages",
    "linear",
    "moves",
    "noops",
    "norm_tails",
    "norms",
    "pointwise",
    "register",
    "regroups",
]
