"""Flatten, view and reshape: an affine passes where the axes along which it varies are known."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import fx, nn

from fxfuse.graph.ranks import recorded_value
from fxfuse.operators.axes import count
from fxfuse.operators.register import row
from fxfuse.operators.roles import Carrier
from fxfuse.report.reasons import Reason, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fxfuse.algebra.affine import Affine
    from fxfuse.graph.registry import Axes


class Regroup(Carrier):
    """Some neighbouring axes become others, of which there are as many elements; those around them stay."""

    @abstractmethod
    def regrouped(self) -> Regrouped:
        """Return what becomes of which axes."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Go back."""
        groups = self.regrouped()
        return [(self.input, self._moved(affine, groups.left, groups.after, groups.before, groups.right))]

    def push(self, affine: Affine, source: fx.Node) -> Affine:  # noqa: ARG002 - it has one input
        """Go along."""
        groups = self.regrouped()
        return self._moved(affine, groups.left, groups.before, groups.after, groups.right)

    def _moved(self, affine: Affine, left: int, old: Sizes, new: Sizes, right: int) -> Affine:
        """Return the affine with the axes of sizes ``old`` in the groups ``new``."""
        rank = left + len(old) + right
        trimmed = affine.trimmed()
        require(trimmed.rank <= rank, Reason.NOT_LINEAR, value=self.call.path)
        full = trimmed.with_rank(rank)
        shape = [max(pair) for pair in zip(full.scale.shape, full.shift.shape, strict=True)]
        inner = shape[left : left + len(old)]
        if all(size == 1 for size in inner):  # the same for all elements of the group
            into: list[int] = [1] * len(new)
        else:
            # Where the affine varies it tells the size itself.
            old = tuple(size if size > 1 else known for size, known in zip(inner, old, strict=True))
            old = _filled(old, new)
            into = self._completed(new, self._product(old))
            full = full.rearrange(lambda t: t.expand(*t.shape[:left], *old, *t.shape[left + len(old) :]))
        full = full.rearrange(lambda t: t.reshape(*t.shape[:left], *into, *t.shape[left + len(old) :]))
        if len(into) == 1:
            return full.trimmed()
        # Norms of instances are written out with a copy of the constants for each of the batch.
        return full.collapsed(range(left, left + len(into))).trimmed()

    def _product(self, parts: Sizes) -> int:
        self._require_sizes(None not in parts)
        count = math.prod(size for size in parts if size is not None)
        self.require_small(count)
        return count

    def _completed(self, wanted: Sizes, count: int) -> list[int]:
        """Return sizes of which one may be unknown, of a number of elements that is known."""
        known = math.prod(size for size in wanted if size is not None)
        unclear = wanted.count(None) > 1 or count % known or (None not in wanted and known != count)
        self._require_sizes(not unclear)
        return [count // known if size is None else size for size in wanted]

    def _require_sizes(self, known: bool) -> None:  # noqa: FBT001 - reads as a sentence
        value = self.call.graph.describe(self.input)
        require(known, Reason.UNKNOWN_SIZE, value=value, detail="the axes that are merged")


class Flatten(Regroup):
    """Neighbouring axes become one."""

    def regrouped(self) -> Regrouped:
        """Return the axes that are merged."""
        start, end = (self.call.get(name, default) for name, default in (("start_dim", 0), ("end_dim", -1)))
        require(isinstance(start, int) and isinstance(end, int), Reason.NOT_LINEAR, value=self.call.path)
        rank = self._rank(start, end)
        start, end = start % rank, end % rank
        known, right = self.call.graph.sizes.of(self.input) or (None,) * rank, rank - 1 - end
        return Regrouped(start, known[start : end + 1], (self.call.graph.sizes.taken(self.node, -1 - right),), right)

    def _rank(self, start: int, end: int) -> int:
        """Return the number of axes of the input; an assumed rank of the result is enough if a norm checks it."""
        before = self.call.rank(self.input)
        if (before is None or not before.proven) and 0 <= start <= end:
            return self.require_axes_of_result() + end - start
        return self.require_axes(self.input)


class Reshape(Regroup):
    """``view`` and ``reshape``, where the axes before or behind those that change are known to stay."""

    def pull(self, affine: Affine) -> list[tuple[fx.Node, Affine]]:
        """Go back; where the last axis alone is divided, whatever the number of axes before it is."""
        divided, full = self._divides_the_last(), affine.trimmed()
        if self._labels_before() or not divided or full.rank > len(divided):
            return super().pull(affine)
        full = full.with_rank(len(divided))
        return [(self.input, full.rearrange(lambda t: t.expand(divided).reshape(-1)))]

    def _divides_the_last(self) -> list[int]:
        """Return the last sizes asked for whose product is the size of the last axis; empty if there are none."""
        asked, sizes = self._labels_after(), self.call.graph.sizes
        whole = sizes.along(self.input, -1)
        for first in range(len(asked) - 1, 0, -1):
            numbers = [size for size in asked[first:] if isinstance(size, int)]
            if len(numbers) != len(asked) - first:
                return []
            if math.prod(numbers) == whole:
                return numbers
        return []

    def regrouped(self) -> Regrouped:
        """Return the axes that are not the same before and after."""
        graph = self.call.graph
        self.require(not any(isinstance(size, torch.dtype) for size in self._given()))  # view(dtype)
        before, after = self._labels_before(), self._labels_after()
        left = _common(before, after)
        right = _common(before[left:][::-1], after[left:][::-1])
        unknown = not before or (not left and not right)
        require(not unknown, Reason.UNKNOWN_SHAPE, value=graph.describe(self.input), detail="not known")
        old, new = (labels[left : len(labels) - right] for labels in (before, after))
        known = [tuple(size if isinstance(size, int) else None for size in labels) for labels in (old, new)]
        whole = (graph.sizes.taken(self.node, -1 - right),) if known[1] == (None,) else known[1]
        return Regrouped(left, known[0], whole, right)

    def label_of(self, axis: int, rank: int) -> object:
        """Return what identifies the size of one of so many axes of the result; None for the unknown."""
        given = self._given()
        return self.call.graph.sizes.asked(given[axis]) if len(given) == rank else None

    def _labels_before(self) -> list[object]:
        sizes = self.call.graph.sizes
        return [sizes.label(self.input, axis) for axis in range(len(sizes.of(self.input)))]

    def _labels_after(self) -> list[object]:
        sizes, value = self.call.graph.sizes, recorded_value(self.node)
        if value is not None:
            return [sizes.label(self.node, axis) for axis in range(value.ndim)]
        return [sizes.asked(size) for size in self._given()]

    def _given(self) -> list[Any]:
        shape = self.call.get("shape")
        return list(shape) if isinstance(shape, (list, tuple)) else []


class ReshapeAs(Reshape):
    """``reshape_as`` and ``view_as``: to the shape of another value."""

    def label_of(self, axis: int, rank: int) -> object:
        """Return what identifies that size of the other value."""
        sizes, other = self.call.graph.sizes, self.call.get("other")
        known = isinstance(other, fx.Node) and len(sizes.of(other)) == rank
        return sizes.label(other, axis) if known else None

    def _labels_after(self) -> list[object]:
        sizes, other = self.call.graph.sizes, self.call.get("other")
        known = sizes.of(other) if isinstance(other, fx.Node) else ()
        return [sizes.label(other, axis) for axis in range(len(known))]


class Unflatten(Regroup):
    """One axis becomes several."""

    def regrouped(self) -> Regrouped:
        """Return the axis that is split, and into what."""
        axis, into = self.call.get("dim"), self.call.get("sizes", self.call.get("unflattened_size"))
        self.require(isinstance(axis, int) and isinstance(into, (list, tuple)))
        rank = self.require_axes(self.input)
        left, sizes = axis % rank, self.call.graph.sizes
        asked = [sizes.asked(size) for size in into]
        after = tuple(size if isinstance(size, int) else None for size in asked)
        return Regrouped(left, (sizes.along(self.input, left - rank),), after, rank - 1 - left)


def _filled(sizes: Sizes, whole: Sizes) -> Sizes:
    """Return sizes of which the unknown are neighbours, with these as one: only their product matters."""
    unknown = [axis for axis, size in enumerate(sizes) if size is None]
    known = math.prod(size for size in sizes if size is not None)
    total = math.prod(size for size in whole if size is not None)
    alike = bool(unknown) and unknown[-1] - unknown[0] == len(unknown) - 1 and None not in whole
    if not alike or total % known:
        return sizes
    return (*sizes[: unknown[0]], total // known, *[1] * (len(unknown) - 1), *sizes[unknown[-1] + 1 :])


def _common(one: list[object], other: list[object]) -> int:
    """Return how many leading labels are the same."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a is None or a != b), min(len(one), len(other)))


Sizes: TypeAlias = "tuple[int | None, ...]"


class Regrouped(NamedTuple):
    """What becomes of the axes of a value: ``left`` and ``right`` stay around those that change."""

    left: int
    before: Sizes
    after: Sizes
    right: int


def _flattened(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    start, end, before = arguments.get("start_dim", 0), arguments.get("end_dim", -1), axes(arguments.get("input"))
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    if before:
        return before - (end % before - start % before)
    return start + 1 if start >= 0 and end == -1 else None  # everything from start on becomes one axis


def _unflattened(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    into, before = arguments.get("sizes", arguments.get("unflattened_size")), axes(arguments.get("input"))
    return before + len(into) - 1 if before and isinstance(into, (list, tuple)) else None


def _other(arguments: Mapping[str, Any], axes: Axes) -> int | None:
    return axes(arguments.get("other"))


_aten = torch.ops.aten
# fmt: off
row("flatten", Flatten, "input start_dim end_dim", nn.Flatten, "flatten", torch.flatten, _aten.flatten.using_ints,
    rank=_flattened, axes="start_dim end_dim", result="maybe view")
row("reshape", Reshape, "input *shape", "view", _aten.view.default, rank=count("shape"), result="view", asks="strides")
row("reshape", Reshape, "input *shape",
    "reshape", torch.reshape, _aten.reshape.default, _aten._unsafe_view.default,
    rank=count("shape"), result="maybe view")
row("reshape_as", ReshapeAs, "input other", "view_as", _aten.view_as.default,
    rank=_other, result="view", asks="strides", like="other")
row("reshape_as", ReshapeAs, "input other", "reshape_as", _aten.reshape_as.default,
    rank=_other, result="maybe view", like="other")
row("expand_as", None, "input other", "expand_as", _aten.expand_as.default, rank=_other, result="view", like="other")
row("unflatten", Unflatten, "input dim sizes", "unflatten", torch.unflatten, _aten.unflatten.int,
    rank=_unflattened, result="maybe view")
row("unflatten", Unflatten, "input dim unflattened_size", nn.Unflatten, rank=_unflattened, result="maybe view")
