"""Stride, padding and dilation of convolutions and pools: read from a call, and written into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxfuse.algebra.geometry import Axis, Geometry, fits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fxfuse.graph.call import Call


def geometry_of(call: Call, taps: Iterable[int], default_stride: Any = 1) -> Geometry:
    """Return where the taps of a convolution or pool lie.

    Args:
        call: the call.
        taps: the size of the kernel along each axis.
        default_stride: the stride where none is passed.

    Raises:
        Misfit: if that is computed, and not written as numbers.
    """
    taps = tuple(taps)
    passed = call.get("stride")
    stride = numbers(default_stride if passed in (None, [], ()) else passed, len(taps))
    dilation = numbers(call.get("dilation", 1), len(taps))
    padding, mode = call.get("padding", 0), call.get("padding_mode", "zeros")
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(taps, dilation, strict=True)]
        sides = [(n // 2, n - n // 2) for n in total]  # torch pads the odd one behind
    else:
        sides = [(n, n) for n in numbers(padding, len(taps))]
    pairs = zip(taps, stride, dilation, sides, strict=True)
    return Geometry(tuple(Axis(k, s, d, *p) for k, s, d, p in pairs), str(mode))


def transposed_geometry(call: Call, taps: Iterable[int]) -> Geometry:
    """Return what tells transposed convolutions apart; their taps align only where all of it is equal.

    Raises:
        Misfit: if it is computed, and not written as numbers.
    """
    taps = tuple(taps)
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    arguments = tuple(numbers(call.get(name, default), len(taps)) for name, default in defaults.items())
    return Geometry(tuple(Axis(size) for size in taps), fixed=arguments)


def changed_arguments(call: Call, geometry: Geometry, groups: int) -> dict[str, Any]:
    """Return the arguments that a convolution of another geometry needs, those that change alone.

    Raises:
        Misfit: if its padding would have to be another one on either side.
    """
    changed: dict[str, Any] = {} if groups == call.get("groups", 1) else {"groups": groups}
    # Padding that is given as a word may be right for the new kernel too.
    if geometry.fixed is not None or geometry == geometry_of(call, geometry.taps):
        return changed
    fits(all(axis.before == axis.after for axis in geometry.axes), "it needs more padding on one side")
    wanted = {
        "stride": tuple(axis.stride for axis in geometry.axes),
        "padding": tuple(axis.before for axis in geometry.axes),
        "dilation": tuple(axis.dilation for axis in geometry.axes),
    }
    for name, sizes in wanted.items():
        before = call.get(name, 0 if name == "padding" else 1)
        if isinstance(before, str) or numbers(before, len(sizes)) != sizes:
            changed[name] = sizes
    if geometry.padded and geometry.mode != call.get("padding_mode", "zeros"):
        fits(call.module is not None, "a function pads with zeros alone")
        changed["padding_mode"] = geometry.mode
    return changed


def module_attributes(changed: dict[str, Any], geometry: Geometry, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what a module of torch.nn notes of a new weight.

    Args:
        changed: the arguments that change.
        geometry: the new geometry.
        shape: ``(groups, out, in, *taps)``.
    """
    groups, out, inputs = shape[:3]
    if not geometry.axes:
        return {"in_features": inputs, "out_features": out}
    sizes = {"in_channels": groups * inputs, "out_channels": groups * out, "kernel_size": geometry.taps}
    if geometry.fixed is not None:  # a transposed convolution keeps its padding
        return {**changed, **sizes}
    # Modules pad by hand in all modes but "zeros", from the last axis to the first.
    sides = [side for axis in reversed(geometry.axes) for side in (axis.before, axis.after)]
    return {**changed, **sizes, "_reversed_padding_repeated_twice": sides}


def numbers(value: Any, count: int) -> tuple[int, ...]:
    """Return an argument with one number for each axis; one number stands for all.

    Raises:
        Misfit: if it is computed, and not written as numbers.
    """
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    fits(all(type(n) is int for n in listed), "its stride, padding or dilation is computed")
    fits(len(listed) in (1, count), "its stride, padding or dilation is of another number of axes")
    return tuple(listed) * count if len(listed) == 1 else tuple(listed)
