"""How large a model is, before and after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What a model has and runs; None for what is not known: the last three take example inputs.

    Attributes:
        layers: modules without modules in them, but for identities; None for an exported program.
        parameters: elements of the parameters.
        flops: floating-point operations of convolutions and products of matrices, two for a multiply-add.
        norms: batch norms that run.
        kernels: operations that run, but for those that only look at memory in another way.
    """

    layers: int | None
    parameters: int
    flops: int | None = None
    norms: int | None = None
    kernels: int | None = None


def summary(before: Size, after: Size) -> str:
    """Return both in one line.

    Example:
        >>> summary(Size(4, 120, 1_230_000, 2, 4), Size(3, 112, 1_230_000, 1, 3))
        '4 -> 3 layers, 120 -> 112 parameters, 1.23 MFLOPs, 2 -> 1 norms, 4 -> 3 kernels'
    """
    unit = next(name for name, size in UNITS.items() if (before.flops or 0) >= size / 10 or size == 1)
    pairs = {
        "layers": (before.layers, after.layers),
        "parameters": (before.parameters, after.parameters),
        unit: (before.flops, after.flops),
        "norms": (before.norms, after.norms),
        "kernels": (before.kernels, after.kernels),
    }
    known = {what: pair for what, pair in pairs.items() if None not in pair}
    parts = []
    for what, pair in known.items():
        first, second = (f"{(n or 0) / UNITS[unit]:.3g}" if what == unit else f"{n:,}" for n in pair)
        change = first if first == second else f"{first} -> {second}"
        parts.append(f"{change} {what[:-1] if pair == (1, 1) else what}")
    return ", ".join(parts)


UNITS = {"GFLOPs": 10**9, "MFLOPs": 10**6, "kFLOPs": 10**3, "FLOPs": 1}  # a tenth of one is still told in it
