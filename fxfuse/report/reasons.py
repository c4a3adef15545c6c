"""Why an operation stayed: the closed list of reasons, and the refusal that carries one."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why an operation stayed.  Every sentence says what stands in the way, then what to do about it.

    Example:
        >>> import torch
        >>> from fxfuse import Reason, explain
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.BatchNorm2d(8))
        >>> explain(model.eval()).by_reason()[Reason.NOT_LINEAR]
        1
    """

    TRAINING = (
        "it is in training mode, where a norm uses the statistics of each batch and weights still change; "
        "call .eval() on it (or on the model) first"
    )
    BATCH_STATISTICS = (
        "it keeps no running statistics, so that it depends on each batch; "
        "train it with track_running_stats=True, or leave it"
    )
    NOT_LINEAR = (
        "it follows {value}, which is neither a convolution nor a linear layer; "
        "swap the order of the layers if you can retrain, or leave it"
    )
    READ_BY = (
        "it is read by {value}, which is neither a convolution nor a linear layer; "
        "swap the order of the layers if you can retrain, or leave it"
    )
    ZERO_PADDING = (
        "{value} pads its input with zeros, which the shift of the norm does not reach; "
        "train it with padding_mode='replicate', or with the norm behind it"
    )
    SEVERAL_USES = (
        "{value} is also used by {users}, for which it must not change; "
        "swap the order of the layers if you can retrain, or leave it"
    )
    SHARED = (
        "{value} is also used by {users}, and must stay as it is there; "
        "allow_copies=True and structure='graph' let this call have a copy of its own"
    )
    HOOKED = (
        "{value} has hooks, which may see or use what is inside; remove them before fusing, or pass hooks='observe' if "
        "they only look at its inputs and outputs"
    )
    COMPUTED = (
        "{name} of {value} is an input or computed from one, so there is no constant to fold into; leave it, "
        "make it a parameter, or fuse the exported program instead of its graph"
    )
    MUTATED = "{value} is changed in place by {users}; use the out-of-place form of that operation"
    LAYOUT = (
        "the strides of {value} would change, and {users} depends on them; "
        "call .contiguous() before it, or use reshape instead of view"
    )
    NOT_PER_CHANNEL = (
        "it does not act along the output channels of {value} ({detail}); "
        "check the order of the axes, it may be a mistake in the model"
    )
    UNKNOWN_SHAPE = (
        "the number of axes of {value} is {detail}; "
        "pass example_inputs if there were none, or fuse the exported program, where it is known"
    )
    UNKNOWN_SIZE = (
        "the size of {value} along {detail} is not known, so the constants cannot get that size; "
        "fuse the exported program, where sizes are known, or write the size as a number"
    )
    NOT_FLOATING = (
        "{name} of {value} is {dtype}, and only real floating-point tensors of 16 bits and more are folded; "
        "make floats of it (.float()), or fuse before you quantize"
    )
    MALFORMED = "{name} of {value} is {detail}; check the model, it may not run like this"
    PROMOTES = (
        "the result may have another dtype ({detail}); "
        "convert both to one dtype before fusing, or fuse the exported program, where dtypes are known"
    )
    MIXED_DEVICE = "it is on {device}, {value} on {other}; move both to one device before fusing"
    NOT_FINITE = (
        "the folded {name} of {value} would not be finite in {dtype}; "
        "fuse in a wider dtype, or look for a tiny running variance"
    )
    NO_VALUES = "{value} is on the meta device and has no values; load its weights before fusing"
    OPAQUE = (
        "Python code that cannot be traced ({value}: {detail}) calls a layer that the fold would change, mentions its "
        "name, or hands on a module that holds it; {advice}put the layers into a submodule of their own that is "
        "called as a whole"
    )
    REACHED_INTO = (
        "code that was not traced ({users}) reads {value}, and would get another value; "
        "use structure='graph' where the model can be traced as a whole, else pass example_inputs if there were none, "
        "or call the enclosing module as a whole"
    )
    BOUND = (
        "an object in the attribute {value} holds what the fold would change, and goes on using the original; hold the "
        "modules in attributes, lists or dicts, or take the object away before fusing"
    )
    WOULD_GROW = (
        "{value} would grow {detail}, which costs more than it saves; "
        "allow_growth=True merges layers all the same, but no constant of that size is made"
    )
    MISALIGNED = (
        "{value} cannot become one layer ({detail}); "
        "give them one stride, dilation, padding mode and centre if you can retrain, or leave it"
    )
    NOT_ASKED = (
        "none of the rules that were asked for folds it; "
        "add 'fold_upstream' and 'fold_downstream' to rules, or leave rules out"
    )
    NOT_CALLED = "it is not called in the forward that was traced; remove it if it is not needed"
    DIFFERS = (
        "with it the fused model gave another result on the example inputs (relative error {detail}), so the fold "
        "was undone; check rows and rules of your own, or else report the model"
    )
    OWN_FORWARD = (
        "its Python code stays, and calls {value} in a way that no new weights can stand for; "
        "use structure='graph' where the model can be traced as a whole, else pass example_inputs if there were none"
    )

    @property
    def advice(self) -> str:
        """What to do about it, the same for every case."""
        return self.value.rpartition("; ")[2]

    def sentence(self, **facts: object) -> str:
        """Return the reason with its facts filled in, as one sentence with advice."""
        known = {"value": "a value", "users": "others", "name": "weight", "detail": "unknown", **facts}
        return self.value.format_map(_Facts(known))


PASS_INPUTS = "pass example_inputs, or "  # noqa: S105 - no password
"""How advice begins where no inputs were given; empty where they were."""

IN_A_CONTAINER = "hold it in an nn.ModuleList or nn.ModuleDict, and "
"""How advice begins where a module is held in a plain list, in which neither state_dict() nor eval() finds it."""


class _Facts(dict[str, object]):
    """Leaves a fact that nobody gave readable, instead of failing while telling what failed."""

    def __missing__(self, key: str) -> str:
        return f"an unknown {key}"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error, and never leaves the engine
    """What a rule or a view raises where something forbids a rewrite; the report says why.

    Example:
        >>> from fxfuse.extend import Reason, Refusal
        >>> str(Refusal(Reason.MUTATED, value="conv1", users="add_"))
        'conv1 is changed in place by add_; use the out-of-place form of that operation'

    Args:
        reason: what forbids it.
        facts: what the sentence of the reason names: ``value``, ``users``, ``detail`` and others.
    """

    def __init__(self, reason: Reason, **facts: object) -> None:
        super().__init__(reason.sentence(**facts))
        self.reason = reason


def require(condition: bool, reason: Reason, **facts: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Refuse the rewrite under way unless a condition holds.

    Example:
        >>> from fxfuse.extend import Reason, require
        >>> require(True, Reason.TRAINING)

    Args:
        condition: what must hold.
        reason: why the rewrite is refused if it does not.
        facts: as for ``Refusal``.

    Raises:
        Refusal: if the condition does not hold.
    """
    if not condition:
        raise Refusal(reason, **facts)
