"""The operators: one file for each kind, one row of the table for each operation."""

from fxfuse.graph.registry import OPERATORS, Operator
from fxfuse.operators import (  # noqa: F401 - importing fills the table
    activations,
    axes,
    joins,
    linear,
    matrix_product,
    noops,
    norm_affines,
    norms,
    other_layers,
    others,
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
from fxfuse.operators.register import register

__all__ = ["OPERATORS", "Operator", "register"]
