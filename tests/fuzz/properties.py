"""What must hold for every model: the properties, each of which raises with the words that name it."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fxfuse import FuseError, Reason, Report, fx_fuse
from fxfuse.rules import DEFAULT_RULES
from tests.fuzz.build import REFUSED, Built, built
from tests.fuzz.lowered import assert_lowered
from tests.fuzz.nets import Optional
from tests.support.helpers import leaves, unchanged

if TYPE_CHECKING:
    from tests.fuzz.recipes import Recipe
    from tests.support.helpers import Structure


class Broken(Exception):  # noqa: N818 - a finding
    """A property that does not hold: which one, and the facts."""

    def __init__(self, kind: str, facts: object) -> None:
        super().__init__(f"{kind}: {facts}")
        self.kind = kind


def options(recipe: Recipe, x: Tensor) -> dict[str, Any]:
    """The arguments with which a recipe wants to be fused."""
    listed: dict[str, dict[str, Any]] = {
        "guards=False": {"guards": False},
        "allow_copies=False": {"allow_copies": False},
        "allow_growth=True": {"allow_growth": True},
        "stack_parallel": {"rules": (*DEFAULT_RULES, "stack_parallel")},
        "example_inputs": {"example_inputs": (x,)},
    }
    return {name: value for option in recipe.options for name, value in listed[option].items()}


def check(recipe: Recipe) -> Counter[str]:
    """Fuse a random model in both structures, and hold the results against every property; say what was met."""
    made = built(recipe)
    try:
        expected = outcome(made.model, made.x)
    except REFUSED:
        return Counter({"cannot run": 1})
    if not all(value.isfinite().all() for value in tensors(expected)):
        return Counter({"not finite": 1})
    seen = Counter({"models": 1})
    structure: Structure | None = "module" if recipe.structure == "module" else None
    return seen + check_structure(made, expected, structure, options(recipe, made.x))


def check_structure(made: Built, expected: Any, structure: Structure | None, given: dict[str, Any]) -> Counter[str]:
    """All properties but those of exported forms."""
    fused = fuse(made.model, structure=structure, **given)
    if fused is None:
        return Counter({"all norms train": 1})
    report = Report.of(fused)
    assert_options_are_kept(report, given)
    assert_every_norm_is_told(made.model, report)
    try:
        found = outcome(fused, made.x)
    except ValueError as error:
        return raised(error, made, expected, structure, given, report)
    except Exception as error:
        raise Broken("the result raises", f"{type(error).__name__}: {error}\n{report}") from error
    assert_close(expected, found, made, report)
    assert_right_for_more(made, fused, report)
    assert_saved(made, fused, found)
    try:
        assert_lowered(fused, made.x)
    except Exception as error:
        raise Broken("the lowered model", f"{type(error).__name__}: {error}\n{report}") from error
    again = fuse(fused, structure=structure, **given)
    if again is None:  # the norms that are left are all in training mode
        return Counter({"second pass: all norms train": 1})
    # Once a check stands, or identities and calls that nobody reads are gone, more axes are proven and more merges.
    # So is the other reader of a value, if what folded into it is all that read it.
    others = {d.path for d in report.skipped if d.reason is Reason.SEVERAL_USES and report.folded}
    late = [d for d in Report.of(again).folded if not (d.assumed or d.rule.startswith("merge_") or d.path in others)]
    if late and not any(d.assumed for d in report.folded):
        raise Broken("a second pass folds", Report.of(again))
    assert_close(expected, outcome(again, made.x), made, report)
    if isinstance(made.model, Optional):
        assert_right_or_refused(made, fused, report)
    return Counter({d.rule if d.folded else f"stays: {d.reason.name if d.reason else ''}": 1 for d in report.decisions})


def assert_saved(made: Built, fused: nn.Module, found: Any) -> None:
    """Where the model can be saved, so can the result; what is loaded gives the very same."""
    try:
        pickle.dumps(made.model)
    except Exception:  # noqa: BLE001 - the functions of random models are mostly nameless
        return
    try:
        again: Any = pickle.loads(pickle.dumps(fused))
        assert_same_numbers(found, outcome(again, made.x), 0.0, "saved and loaded")
    except Broken:
        raise
    except Exception as error:
        raise Broken("the result cannot be saved", f"{type(error).__name__}: {error}") from error


def assert_right_or_refused(made: Built, fused: nn.Module, report: Report) -> None:
    """Called in a way that was not captured, it gives what the model gives, or says that it cannot."""
    try:
        found = outcome(fused, made.x, made.x.cos())
    except ValueError:
        return
    assert_close(outcome(made.model, made.x, made.x.cos()), found, made, report)


def assert_right_for_more(made: Built, fused: nn.Module, report: Report) -> None:
    """Where the model takes a larger batch, so does the fused one, and gives the same."""
    more = torch.cat([made.x, made.x.cos()])
    try:
        expected = outcome(made.model, more)
    except REFUSED:
        return
    try:
        found = outcome(fused, more)
    except Exception as error:
        raise Broken("the result raises for a larger batch", f"{type(error).__name__}: {error}\n{report}") from error
    assert_close(expected, found, made, f"for a larger batch\n{report}")


def fuse(model: nn.Module, **given: Any) -> nn.Module | None:
    """The fused model; None where all norms are in training mode, which is an error that is told."""
    try:
        with unchanged(model):
            return fx_fuse(model, **given)
    except FuseError as error:
        if "every other norm of the model is in training mode" in str(error):
            return None
        cause = f"\n{type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ else ""
        raise Broken("an exception", f"{error}{cause}") from error
    except AssertionError as error:
        raise Broken("the argument was changed", error) from error


def raised(
    error: ValueError, made: Built, expected: Any, structure: Structure | None, given: dict[str, Any], report: Report
) -> Counter[str]:
    """A check of an assumption may raise; then the assumption is told, and example inputs prove that it is wrong."""
    if "fxfuse folded" not in str(error) or not any(d.assumed for d in report.folded) or "example_inputs" in given:
        raise Broken("the result raises", f"{error}\n{report}") from error
    return Counter({"guarded": 1}) + check_structure(made, expected, structure, {**given, "example_inputs": (made.x,)})


def assert_options_are_kept(report: Report, given: dict[str, Any]) -> None:
    if given.get("allow_copies") is False and report.copied_bytes:
        raise Broken("weights are copied", report)
    if given.get("guards") is False and any(d.assumed and "a check of that stays" in d.detail for d in report.folded):
        raise Broken("an assumption without guards", report)
    if "example_inputs" in given and any(d.reason is Reason.DIFFERS for d in report.skipped):
        raise Broken("a fold was undone", report)


def assert_every_norm_is_told(model: nn.Module, report: Report) -> None:
    """Each norm with running statistics stands in the report."""
    missing = told_norms(model) - {decision.path for decision in report.decisions}
    if missing:
        raise Broken("a norm is not told", f"{sorted(missing)} in\n{report}")


def told_norms(model: nn.Module) -> set[str]:
    """The paths of all norms that a report must tell of."""
    return {path for path, module in model.named_modules() if isinstance(module, _NormBase) and _is_batch(module)}


def _is_batch(module: _NormBase) -> bool:
    return "BatchNorm" in type(module).__name__ or module.track_running_stats


def outcome(model: Any, x: Tensor, *others: Tensor) -> Any:
    """What a model gives, and what it leaves in its first input; norms in training mode count in a copy."""
    torch.manual_seed(0)
    training = isinstance(model, nn.Module) and any(module.training for module in model.modules())
    called, given = copy.deepcopy(model) if training else model, x.clone()
    with torch.no_grad():
        return called(given, *others), given


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(output) if isinstance(leaf, Tensor)]


def assert_close(expected: Any, found: Any, made: Built, facts: object) -> None:
    """The same structure, shapes and dtypes, and the same numbers but for the rounding of the narrowest dtype.

    Some models make much of little: the same model gives something else for an input that differs in its last bit.
    """
    tolerance = 1e-10 if made.rounding < 1e-10 else 50 * made.rounding
    try:
        assert_same_numbers(expected, found, tolerance, facts)
    except Broken as broken:
        if broken.kind != "wrong numbers" or not amplifies(made, tolerance / 10):
            raise


def amplifies(made: Built, tolerance: float) -> bool:
    """Whether the model turns a change of the last bits of its input into one of the output."""
    try:
        first, second = outcome(made.model, made.x)[0], outcome(made.model, made.x * (1 + 4 * made.rounding))[0]
        assert_same_numbers(first, second, tolerance)
    except Broken:
        return True
    return False


def assert_same_numbers(expected: Any, found: Any, tolerance: float = 1e-10, facts: object = "") -> None:
    """The same structure, shapes and dtypes, and the same numbers, of small values absolutely, else relatively."""
    first, second = leaves(expected), leaves(found)
    if len(first) != len(second):
        raise Broken("another output", f"{len(first)} leaves, and then {len(second)}\n{facts}")
    for one, other in zip(first, second, strict=True):
        same = one == other if not isinstance(one, Tensor) else alike(one, other)
        if not same:
            raise Broken("another output", f"{describe(one)}, and then {describe(other)}\n{facts}")
        if isinstance(one, Tensor):
            gap = float((one.double() - other.double()).abs().max()) / max(1.0, float(one.double().abs().max()))
            if not gap <= tolerance:
                raise Broken("wrong numbers", f"{gap:.1e} over {tolerance:.1e}\n{facts}")


def alike(one: Tensor, other: object) -> bool:
    """Whether both are tensors of the same shape and dtype."""
    return isinstance(other, Tensor) and (one.shape, one.dtype) == (other.shape, other.dtype)


def describe(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
