"""Random models in every form of graph: the same outputs, and the same decisions, but for what a form cannot know."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import is_parametrized

from fxfuse import FuseError, Report, fx_fuse
from tests.forms.exceptions import CORE_ATEN, EXPORTED
from tests.fuzz.build import REFUSED, Built, built
from tests.fuzz.nets import UNTRACEABLE
from tests.fuzz.properties import Broken, assert_close, outcome, told_norms
from tests.support.graph_forms import FORMS, Form, Fused
from tests.support.helpers import run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fuzz.recipes import Recipe, Step
    from tests.support.graph_forms import Inputs


class Kept(Form):
    """The class of the model, with the modules exchanged."""

    name = "module"
    shapes_are_known = False

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        del inputs
        result = fx_fuse(model, structure="module", **options)
        no_graph = fx.GraphModule(nn.Module(), fx.Graph())
        return Fused(Report.of(result), no_graph, result, result)


class Given(Form):
    """A graph that somebody else has traced."""

    name = "given"
    shapes_are_known = False

    def _fuse(self, model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Fused:
        traced = fx.symbolic_trace(model)
        run(
            copy.deepcopy(traced), inputs
        )  # a plain trace takes a wrong branch where an argument is optional, and raises here
        fused: Any = fx_fuse(traced, **options)
        return Fused(Report.of(fused), fused, fused, fused)


ALL: dict[str, Form] = {"traced": FORMS["traced"], "module": Kept(), "given": Given()} | {
    name: FORMS[name] for name in EXPORTED
}
FOLDED = "folded"
# What torch raises for a model that it cannot capture.
FAILURES = (*REFUSED, fx.proxy.TraceError, torch._dynamo.exc.TorchDynamoException)


@dataclass(frozen=True)
class Difference:
    """What a norm may become in other forms than the traced one.

    Attributes:
        traced: the outcomes in the traced form, reasons or "folded"; empty for any.
        others: the outcomes in the other form; empty for any.
        forms: the other forms.
        why: a sentence.
    """

    traced: str
    others: str
    forms: tuple[str, ...]
    why: str

    def excuses(self, traced: str, other: str, form: str) -> bool:
        """Whether this is such a case."""
        found = (one in listed.split() or not listed for one, listed in ((traced, self.traced), (other, self.others)))
        return form in self.forms and all(found)


DIFFERENCES = (
    Difference("UNKNOWN_SHAPE UNKNOWN_SIZE", "", EXPORTED, "An exported graph knows the shapes of all values."),
    Difference("OPAQUE REACHED_INTO", "", EXPORTED, "The branch was decided when the graph was exported."),
    Difference(
        "NOT_LINEAR READ_BY NOT_PER_CHANNEL SEVERAL_USES LAYOUT",
        "folded",
        EXPORTED,
        "Sizes and dtypes that are known open ways back and onwards.",
    ),
    Difference(
        "", "OWN_FORWARD SHARED REACHED_INTO", ("module",), "A class has one forward and one weight for all its calls."
    ),
    Difference(
        "folded", "UNKNOWN_SHAPE SEVERAL_USES", ("module",), "A merge that a class cannot hold opens no way for others."
    ),
    Difference("MUTATED", "", CORE_ATEN, "Decompositions write changes in place as new values."),
    Difference(
        "",
        "NOT_LINEAR READ_BY NOT_PER_CHANNEL UNKNOWN_SHAPE LAYOUT",
        CORE_ATEN,
        "What stands between may be decomposed.",
    ),
)


def is_whole(recipe: Recipe) -> bool:
    """Whether every form can capture it, and returns all of it: some drop what nobody needs before the pass sees it."""
    return recipe.style not in UNTRACEABLE and recipe.outputs != "last" and all(map(_is_traced, recipe.steps))


def _is_traced(step: Step) -> bool:
    return step.style not in UNTRACEABLE and all(map(_is_traced, step.inner))


def check_forms(recipe: Recipe, names: Iterable[str] = ALL) -> Counter[str]:
    """Fuse a random model in several forms of graph, and compare what comes of it."""
    if not is_whole(recipe):
        return Counter({"forms: not whole": 1})
    made = built(recipe)
    if any(module.training and isinstance(module, _DropoutNd) for module in made.model.modules()):
        return Counter({"forms: drops at random": 1})  # decompositions draw other numbers
    try:
        expected = outcome(made.model, made.x)[0]
    except REFUSED:
        return Counter({"forms: cannot run": 1})
    fused = {name: fuse(name, made, expected) for name in names}
    missing = Counter(f"forms: {name} cannot be had" for name, one in fused.items() if one is None)
    done = {name: one for name, one in fused.items() if one is not None}
    return Counter({"forms: compared": 1}) + missing + compare(made.model, done)


def fuse(name: str, made: Built, expected: Any) -> Fused | None:
    """The model fused in one form, which gives what the model gives; None where torch cannot capture it."""
    try:
        fused = ALL[name].fuse(made.model, (made.x,))
    except FuseError as error:
        if any(words in str(error) for words in ("every other norm of the model is in training", "cannot be traced")):
            return None
        raise Broken("an exception", f"{name}: {error}") from error
    except AssertionError as error:
        raise Broken("the argument was changed", f"{name}: {error}") from error
    except FAILURES:
        return None
    try:
        torch.manual_seed(0)
        found = fused.run(made.x)
    except Exception as error:
        if "fxfuse folded" in str(error) and any(d.assumed for d in fused.report.folded):
            return None
        raise Broken("the result raises", f"{name}: {error}\n{fused.report}") from error
    assert_close(expected, found, made, f"{name}\n{fused.report}")
    return fused


def compare(model: nn.Module, fused: dict[str, Fused]) -> Counter[str]:
    """Compare the decisions of all forms, norm by norm."""
    outcomes = {name: told(model, one) for name, one in fused.items()}
    for name in ("exported", "core_aten"):
        program = name.replace("exported", "program").replace("core_aten", "core_program")
        if {name, program} <= outcomes.keys() and outcomes[name] != outcomes[program]:
            raise Broken("a program differs from its graph", f"{outcomes[name]}, {program}: {outcomes[program]}")
    seen: Counter[str] = Counter()
    # What a hook does is part of an exported graph; in a trace a module with hooks stays, as something unknown.
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    if any(map(is_parametrized, model.modules())) and outcomes.pop("given", None) is not None:
        seen["forms: torch's own trace leaves parametrized layers whole"] += 1
    for name, others in outcomes.items():
        for path, traced in outcomes.get("traced", {}).items():
            other = others.get(path, ("not told",))
            if name != "traced" and traced != other:
                if not hooked or traced == (FOLDED,):
                    require_excused(name, path, traced, other, fused)
                seen["forms: excused"] += 1
    return seen


def require_excused(
    name: str, path: str, traced: tuple[str, ...], other: tuple[str, ...], fused: dict[str, Fused]
) -> None:
    """Raise unless a difference has a reason."""
    gone, come = (set(traced) - set(other)) or set(traced), (set(other) - set(traced)) or set(other)
    if not any(d.excuses(one, two, name) for d in DIFFERENCES for one in gone for two in come):
        facts = f"{path}: {traced} when traced, {other} in {name}\n{fused['traced'].report}\n{fused[name].report}"
        raise Broken(f"forms differ: {' '.join(traced)} -> {' '.join(other)}", facts)


def told(model: nn.Module, fused: Fused) -> dict[str, tuple[str, ...]]:
    """What became of each norm of a model, by its path; of a norm that is called twice, of each call."""
    found: dict[str, set[str]] = defaultdict(set)
    for decision in fused.report.decisions:
        found[decision.path].add(decision.reason.name if decision.reason else FOLDED)
    return {path: tuple(sorted(found[path])) for path in sorted(told_norms(model)) if path in found}
