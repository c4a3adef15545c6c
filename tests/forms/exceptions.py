"""Where the forms of graph do not agree, and why.  This is the only place where a test may know that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxfuse import Reason

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
    """What happens to a case of ``tests.report.reason_cases`` in some forms.

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
    Exception_(
        Reason.MALFORMED, ALL_BUT_TRACED, NOT_CAPTURED, "Such a model may not run, which these forms need once."
    ),
    Exception_(Reason.NO_VALUES, ALL_BUT_TRACED, NOT_CAPTURED, "A model of two devices does not run, not even once."),
    Exception_(Reason.OPAQUE, ALL_BUT_TRACED, NOT_CAPTURED, "Nothing but fxfuse captures such a model in parts."),
    Exception_(Reason.REACHED_INTO, ALL_BUT_TRACED, FOLDED, "A graph has no methods beside its forward."),
    Exception_(Reason.BOUND, ALL_BUT_TRACED, FOLDED, "A graph holds no objects in attributes of its modules."),
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


def _told(sample: Sample) -> str:
    """What a sample says beside the input: the arguments of the call, or the options of the module."""
    call = getattr(sample.model, "inner", sample.model)
    return f"{getattr(call, 'plain', call)} {getattr(call, 'named', '')}".lower().replace("': ", "=")


def _of(names: str, *roles: str) -> Callable[[Sample], bool]:
    """Samples of some names, whatever the overload, in some roles or all."""
    listed = set(names.split())
    return lambda sample: _name(sample).partition(".")[0] in listed and (not roles or sample.role in roles)


def _is_flattened(sample: Sample) -> bool:
    """Whether channels and rows become one axis."""
    return _of("flatten")(sample) and sample.pull is not None and sample.pull.alike > 1


def _repeats_elements(sample: Sample) -> bool:
    """Whether a pad takes elements of the value."""
    return "pad" in _name(sample) and any(mode in _name(sample) + _told(sample) for mode in ("reflect", "repl", "circ"))


DECOMPOSED_RESIZES = frozenset(
    "upsample_nearest1d.vec upsample_nearest3d.vec _upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec "
    "_upsample_nearest_exact3d.vec upsample_linear1d.vec upsample_linear1d.default upsample_bilinear2d.default "
    "upsample_bicubic2d.vec upsample_bicubic2d.default upsample_trilinear3d.vec".split()
)
ROWS = (
    Row(
        _of("einsum", "Linear"),
        (*CORE_ATEN, "made"),
        "It is decomposed to a batched product of one matrix, between views of both factors.",
    ),
    Row(
        lambda sample: _of("tensordot", "Linear")(sample) and bool(re.search(r"\(\[\d+\], \[", _told(sample))),
        ("traced",),
        "Without inputs nobody knows which of its axes is the last.",
    ),
    Row(
        _of("lerp lerp_"),
        CORE_ATEN,
        "It is decomposed to a choice between two sums, by the size of the weight.",
    ),
    Row(
        lambda sample: _of("linear", "Linear")(sample) and sample.x.ndim == 1 and "bias=false" in _told(sample),
        ("made",),
        "A linear layer without a bias is decomposed to unsqueeze, mm, and squeeze in place for a vector.",
    ),
    Row(
        lambda sample: _of("matmul", "Linear")(sample) and sample.x.ndim == 1,
        ("made",),
        "A product of a vector is decomposed to unsqueeze, mm, and squeeze in place.",
    ),
    Row(
        lambda sample: _of("view reshape _unsafe_view view_as reshape_as squeeze")(sample) or _is_flattened(sample),
        ("traced",),
        "The sizes that decide it are nowhere in this graph.",
    ),
    Row(
        _of("instancenorm1d instancenorm2d instancenorm3d instance_norm", "Tail"),
        (*CORE_ATEN, "made"),
        "It is decomposed to a batch norm with the statistics of the batch, between two views.",
    ),
    Row(
        _of("to float half double bfloat16 type_as _to_copy"),
        ("traced",),
        "A plain trace does not know dtypes, so that the call could round.",
    ),
    Row(
        _of("adaptive_max_pool1d adaptivemaxpool1d"),
        TRAINING_IR,
        "torch.export has an overload of its own for this name, which is not in the table.",
    ),
    Row(
        _of("max_pool1d maxpool1d adaptive_max_pool1d adaptivemaxpool1d"),
        ("made",),
        "It is decomposed to a pool of images, of which the graph squeezes the indices as well.",
    ),
    Row(
        lambda sample: "pad" in _name(sample) and "." not in _name(sample) and "constant_pad_nd" not in _name(sample),
        ("dynamo",),
        "Dynamo calls torch._C._nn.pad, which is not in the table.",
    ),
    Row(_of("prelu _prelu_kernel"), CORE_ATEN, "PReLU is decomposed to a comparison and a product."),
    Row(_of("roll"), CORE_ATEN, "It is decomposed to indexing with tensors."),
    Row(_repeats_elements, CORE_ATEN, "It is decomposed to indexing with tensors."),
    Row(
        lambda sample: _repeats_elements(sample) and "circ" in _name(sample) + _told(sample),
        ("made",),
        "It is decomposed to copies into an empty tensor.",
    ),
    Row(
        _of("sum"), CORE_ATEN, "The stack is decomposed to a cat of values with one axis more, which is no sum of them."
    ),
    Row(
        lambda sample: _of("interpolate upsample")(sample) and sample.x.ndim != 4,
        CORE_ATEN,
        "Resizing other values than images is decomposed to indexing with tensors, and sums.",
    ),
    Row(
        lambda sample: _name(sample) in DECOMPOSED_RESIZES,
        CORE_ATEN,
        "It is decomposed to indexing with tensors, and sums.",
    ),
)


MODELS: dict[tuple[str, str], tuple[int, str]] = {}
"""Models of torchvision and timm, and forms, that fold another number of norms: the number, and why.  None do."""
