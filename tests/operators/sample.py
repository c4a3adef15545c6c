"""What a sample is: one call of one operation, and the affines of which its law speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fxfuse.algebra.affine import Affine
from tests.operators.calls import Method, Part, Single, Stacked
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

# No two axes of one value are of one size.
BATCH, LINE, IMAGE, VOLUME = (3, 8), (2, 8, 6), (2, 8, 6, 4), (2, 8, 6, 4, 5)


@dataclass(frozen=True)
class Along:
    """Makes an affine of a value that varies along some of its axes.

    Attributes:
        axes: the axes, counted from the first or, negative, from the last.
        positive: all scales are positive.
        keeps: a number that stays what it is; 0 for an affine without a shift.
        alike: how many neighbours along the last of the axes have the same scale and shift.
        exact: all scales are powers of two, with which nothing is rounded.
    """

    axes: tuple[int, ...]
    positive: bool = False
    keeps: float | None = None
    alike: int = 1
    exact: bool = False

    def __call__(self, shape: Sequence[int]) -> Affine:
        """An affine of values of a shape, the same every time."""
        varies = [axis % len(shape) for axis in self.axes]
        sizes = [size if axis in varies else 1 for axis, size in enumerate(shape)]
        if varies:
            sizes[varies[-1]] //= self.alike
        scale, shift = randn(*sizes, seed=5), randn(*sizes, seed=6)
        if self.positive:
            scale = scale.abs() + 0.1
        if self.exact or self.keeps:
            scale = scale.sign() * 2.0 ** scale.abs().round()
        if self.keeps is not None:
            shift = self.keeps - scale * self.keeps  # so that scale * keeps + shift == keeps
        affine = Affine(scale, shift, shifts=self.keeps != 0.0)
        if self.alike > 1:
            affine = affine.rearrange(lambda t: t.repeat_interleave(self.alike, varies[-1]))
        return affine.trimmed()


def along(*axes: int, **options: Any) -> Along:
    """Affines that vary along these axes."""
    return Along(axes, **options)


PER_CHANNEL = along(1)


@dataclass(frozen=True)
class Sample:
    """One call of one operation.

    Attributes:
        model: a module of which the forward is this call alone.
        target: the key of the table under which it must be found.
        x: the input.
        role: the role it plays: "Linear", "AffineSource", "Tail" of a norm, "Carrier", "Join" or "Sum" of several
            inputs, or "Parts", of which one item is the carrier.
        others: the other inputs, where it has several.
        pull: for which affines of the result the law of a carrier holds; None where it lets none pass.
        push: for which affines of the input; of a tail, along which axes it varies.  Where that is one axis, which
            can be the channels of a layer, the affines that ``pull`` makes of the result belong to the same channels.
    """

    model: nn.Module
    target: Any
    x: Tensor
    role: str
    others: tuple[Tensor, ...] = ()
    pull: Along | None = PER_CHANNEL
    push: Along = PER_CHANNEL

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (self.x, *self.others)

    @property
    def operations(self) -> int:
        """How many operations of the table the model calls: a part is taken of something, and a stack is summed."""
        return 2 if isinstance(self.model, (Part, Stacked)) else 1

    @property
    def form(self) -> str:
        return type(self.model).__name__.lower()

    def __str__(self) -> str:
        name = self.target if isinstance(self.target, str) else self.target.__name__
        return f"{self.form}-{name}".replace(".default", "-aten")


def carrier(
    model: nn.Module, x: Tensor, pull: Along | None = PER_CHANNEL, push: Along = PER_CHANNEL, *, target: Any = None
) -> Sample:
    """A sample of a carrier, found under what the model calls, or under another target."""
    role = "Parts" if isinstance(model, Part) else "Carrier"
    return Sample(model.eval(), target or called(model), x, role, (), pull, push)


def called(model: nn.Module) -> Any:
    """The class, the function or the name of the method that a model calls."""
    if isinstance(model, Part):
        return called(model.inner)
    if isinstance(model, Single):
        return type(model.inner)
    return model.name if isinstance(model, Method) else model.function
