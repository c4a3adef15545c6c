"""The operators: one file for each kind, one row of the table for each operation."""

from fxfuse.operator_table import OPERATORS, Operator, register
from fxfuse.operators import linear, noops, norms, pointwise  # importing them fills the table

__all__ = ["OPERATORS", "Operator", "linear", "noops", "norms", "pointwise", "register"]
