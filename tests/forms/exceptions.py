"""Where the forms of graph do not agree, and why.  This is the only place where a test may know that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxfuse import Reason
from tests.random_models import LAYERS, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.operators.sample import Sample

FOLDED, NOT_TOLD, NOT_CAPTURED = "folded", "not told", "cannot be captured"
"""What can happen beside a reason: the fold is right there; the graph has no such norm; there is no graph."""

TRAINING_IR = ("exported", "program")
CORE_ATEN = ("core_aten", "core_program")
EXPORTED = (*TRAINING_IR, *CORE_ATEN)
INPUTS = ("dynamo", "made")
ALL_BUT_TRACED = (*EXPORTED, *INPUTS)


@dataclass(frozen=True)
class Exception_:
    """What happens to a case of ``tests.reason_cases`` in some forms.

    Attributes:
        reason: the reason of the case.
        forms: the forms.
        instead: another reason, or one of the words above.
        why: a sentence.
    """

    reason: Reason
    forms: tuple[str, ...]
    instead: Reason | str
    why: str


REASONS = (
    Exception_(
        Reason.HOOKED,
        ALL_BUT_TRACED,
        FOLDED,
        "What a hook does is part of the graph, and the hook itself is not.",
    ),
    Exception_(
        Reason.MUTATED,
        (*TRAINING_IR, "core_program", "made"),
        Reason.COMPUTED,
        "The norm reads the result of the change, and not the buffer that was changed.",
    ),
    Exception_(
        Reason.UNKNOWN_SHAPE, ALL_BUT_TRACED, FOLDED, "These graphs know the shapes of all values, so it is proven."
    ),
    Exception_(
        Reason.UNKNOWN_SIZE,
        ALL_BUT_TRACED,
        FOLDED,
        "These graphs know the sizes of all values that are the same always.",
    ),
    Exception_(
        Reason.NOT_FLOATING, ALL_BUT_TRACED, NOT_CAPTURED, "Batch norms do not run on complex values, not even once."
    ),
    Exception_(Reason.NO_VALUES, ALL_BUT_TRACED, NOT_CAPTURED, "A model of two devices does not run, not even once."),
    Exception_(Reason.OPAQUE, ALL_BUT_TRACED, NOT_CAPTURED, "Nothing but fxfuse captures such a model in parts."),
    Exception_(
        Reason.BRANCHES, ALL_BUT_TRACED, FOLDED, "The branch was decided when the graph was made, for these sizes."
    ),
    Exception_(Reason.REACHED_INTO, ALL_BUT_TRACED, NOT_CAPTURED, "Nothing but fxfuse captures such a model in parts."),
    Exception_(Reason.NOT_CALLED, ALL_BUT_TRACED, NOT_TOLD, "A graph does not know of the modules that nobody called."),
    Exception_(Reason.DIFFERS, INPUTS, FOLDED, "fuse_graph takes no example inputs, so that nothing is compared."),
    Exception_(
        Reason.OWN_FORWARD, ALL_BUT_TRACED, FOLDED, "No class is written back, so that each call has its own weights."
    ),
)


def expected(reason: Reason, form: str) -> Reason | str:
    """What a case that provokes a reason gives in a form."""
    found = [e.instead for e in REASONS if e.reason is reason and form in e.forms]
    return found[0] if found else reason


@dataclass(frozen=True)
class FoldsOfRandomModels:
    """Random models of which a form folds another number of norms than the traced form.

    Attributes:
        applies: whether a model and the name of a form are meant.
        why: a sentence.
    """

    applies: Callable[[Shape, str], bool]
    why: str


IN_PLACE = ("iadd", "relu_", "relu", "block")


def is_hooked(shape: Shape) -> bool:
    """Whether the model has so many layers that one of them has the hook."""
    return shape.hooked < len({(step.kind, step.number) for step in shape.steps if step.kind in LAYERS})


FOLDS_OF_RANDOM_MODELS = (
    FoldsOfRandomModels(
        lambda shape, _form: is_hooked(shape),
        "What a hook does is part of all graphs but the traced one, where the module with the hook stays.",
    ),
    FoldsOfRandomModels(
        lambda shape, form: form in CORE_ATEN and any(step.kind in IN_PLACE for step in shape.steps),
        "Decompositions write changes in place as new values, so that nothing is changed any more.",
    ),
)


@dataclass(frozen=True)
class Row:
    """Samples of ``tests.operators`` that do not fold in some forms.

    Attributes:
        applies: whether a sample is meant.
        forms: the forms.
        why: a sentence.
    """

    applies: Callable[[Sample], bool]
    forms: tuple[str, ...]
    why: str


def _name(sample: Sample) -> str:
    return str(getattr(sample.target, "__name__", sample.target)).lower()


def _unbatched(sample: Sample) -> bool:
    """Whether a convolution or an instance norm gets no batch axis."""
    dims = next((dims for dims in (1, 2, 3) if f"{dims}d" in _name(sample)), None)
    return dims is not None and sample.x.ndim == dims + 1 and ("conv" in _name(sample) or "instance" in _name(sample))


ROWS = (
    Row(
        lambda sample: "conv" in _name(sample) and _unbatched(sample),
        (*CORE_ATEN, "made"),
        "A convolution without a batch axis is decomposed to unsqueeze, convolution and squeeze.",
    ),
    Row(
        lambda sample: sample.role == "Linear" and "linear" in _name(sample) and sample.x.ndim != 2,
        (*CORE_ATEN, "made"),
        "A linear layer on another number of axes than two is decomposed to view, mm and view.",
    ),
    Row(
        lambda sample: "instance" in _name(sample) and not _unbatched(sample),
        (*CORE_ATEN, "made"),
        "An instance norm is decomposed to repeat, view, batch norm and view.",
    ),
    Row(
        lambda sample: "instance" in _name(sample) and _unbatched(sample),
        ALL_BUT_TRACED,
        "The forward of an instance norm adds a batch axis itself, which these graphs write out.",
    ),
)


MODELS: dict[tuple[str, str], tuple[int, str]] = {}
"""Models of torchvision and timm, and forms, that fold another number of norms: the number, and why.  None do."""
