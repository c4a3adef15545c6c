"""Flatten, view and reshape: an affine passes where the axes along which it varies are known."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from fxfuse.operator_table import register
from fxfuse.operators.roles import AffineSource, Carrier
from fxfuse.reasons import Reason, Refusal, require
from fxfuse.sizes import asked_label, size_label, sizes

if TYPE_CHECKING:
    from torch import fx

    from fxfuse.affine import Affine


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
            into = self._completed(new, self._product(old))
            full = full.rearrange(lambda t: t.expand(*t.shape[:left], *old, *t.shape[left + len(old) :]))
        return full.rearrange(lambda t: t.reshape(*t.shape[:left], *into, *t.shape[left + len(old) :])).trimmed()

    def _product(self, parts: Sizes) -> int:
        require(None not in parts, Reason.UNKNOWN_SHAPE, value=self.call.graph.describe(self.input), detail=_SIZES)
        count = math.prod(size for size in parts if size is not None)
        require(count <= _LARGEST, Reason.WOULD_GROW, value=self.call.path, detail=f"{count:,} elements")
        return count

    def _completed(self, wanted: Sizes, count: int) -> list[int]:
        """Return sizes of which one may be unknown, of a number of elements that is known."""
        known = math.prod(size for size in wanted if size is not None)
        unclear = wanted.count(None) > 1 or count % known or (None not in wanted and known != count)
        value = self.call.graph.describe(self.input)
        require(not unclear, Reason.UNKNOWN_SHAPE, value=value, detail=_SIZES)
        return [count // known if size is None else size for size in wanted]


class Flatten(Regroup):
    """Neighbouring axes become one."""

    def regrouped(self) -> Regrouped:
        """Return the axes that are merged."""
        start, end = (self.call.get(name, default) for name, default in (("start_dim", 0), ("end_dim", -1)))
        require(isinstance(start, int) and isinstance(end, int), Reason.NOT_LINEAR, value=self.call.path)
        rank = self._rank(start, end)
        start, end = start % rank, end % rank
        known = sizes(self.call.graph, self.input) or (None,) * rank
        return Regrouped(start, known[start : end + 1], (None,), rank - 1 - end)

    def _rank(self, start: int, end: int) -> int:
        """Return the number of axes of the input; what is assumed of the result, the norm that reads it checks."""
        before, after = self.call.rank(self.input), self.call.rank(self.node)
        if before is not None and before.proven:
            return before.axes
        reader = self.call.graph.users(self.node)[:1]
        checked = after is not None and 0 <= start <= end and reader and self.call.graph.plays(reader[0], AffineSource)
        if after is None or not checked:
            raise Refusal(Reason.UNKNOWN_SHAPE, value=self.call.graph.describe(self.input), detail="not known")
        return after.axes + end - start


class Reshape(Regroup):
    """``view`` and ``reshape``, where the axes before or behind those that change are known to stay."""

    def regrouped(self) -> Regrouped:
        """Return the axes that are not the same before and after."""
        graph = self.call.graph
        before, after = self._labels_before(), self._labels_after()
        left = _common(before, after)
        right = _common(before[left:][::-1], after[left:][::-1])
        unknown = not before or (not left and not right)
        require(not unknown, Reason.UNKNOWN_SHAPE, value=graph.describe(self.input), detail="not known")
        old, new = (labels[left : len(labels) - right] for labels in (before, after))
        known = [tuple(size if isinstance(size, int) else None for size in labels) for labels in (old, new)]
        return Regrouped(left, known[0], known[1], right)

    def _labels_before(self) -> list[object]:
        return [
            size_label(self.call.graph, self.input, axis) for axis in range(len(sizes(self.call.graph, self.input)))
        ]

    def _labels_after(self) -> list[object]:
        value = self.node.meta.get("val")
        if isinstance(value, Tensor):
            return [size_label(self.call.graph, self.node, axis) for axis in range(value.ndim)]
        given: Any = self.call.graph.source(self.node).args[1:]
        given = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        return [asked_label(self.call.graph, size) for size in given]


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


_LARGEST = 1 << 20  # elements: a vector of channels does not become a tensor of the size of an activation
_SIZES = "known, but not the sizes along them that are merged"
_aten = torch.ops.aten

register(
    "flatten",
    Flatten,
    arguments=("input", "start_dim", "end_dim"),
    modules=[nn.Flatten],
    methods=["flatten"],
    functions=[torch.flatten, _aten.flatten.using_ints],
)
register(
    "reshape",
    Reshape,
    arguments=("input", "shape"),
    methods=["view", "reshape"],
    functions=[torch.reshape, _aten.view.default, _aten.reshape.default, _aten._unsafe_view.default],
)
