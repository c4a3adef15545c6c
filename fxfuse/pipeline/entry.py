"""The way into a pass: arguments are checked before anything is done, and only a ``FuseError`` comes out.

Each error is one sentence: what was wrong, that nothing was changed, and what to do.
"""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

from fxfuse.graph.registry import add_late_rows
from fxfuse.modules.lookup import is_norm, is_quantized, paths_below, tensor_paths
from fxfuse.modules.origin import NOT_USERS, is_compiled
from fxfuse.pipeline.run import fuse, put_into
from fxfuse.report.errors import FuseError, out_of_memory, sentence
from fxfuse.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fxfuse.pipeline.attempt import Attempt
    from fxfuse.pipeline.options import Options
    from fxfuse.rules import Rule


def run_pass(
    model: nn.Module | ExportedProgram, example_inputs: Any, options: Options
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Fuse, in place if that is asked for, and let no other error out than a ``FuseError``."""
    with as_fuse_errors(f"{type(model).__name__} could not be fused"):
        require_options(options)
        require_fusable(model, options.structure, inplace=options.inplace)
        add_late_rows()
        with collection_waits():
            attempt, result = fuse(model, example_inputs, options)
        if options.inplace and isinstance(model, fx.GraphModule):
            result = put_into(model, result)
        return attempt, result


@contextlib.contextmanager
def as_fuse_errors(task: str) -> Iterator[None]:
    """Let no other error out than a ``FuseError``: any other one is a fault of fxfuse, and says so.

    Args:
        task: what fails, as in "ResNet could not be fused".
    """
    try:
        yield
    except FuseError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise FuseError(
                f"{task}, since there is not enough memory ({sentence(error)}); nothing was changed. "
                "Free some, or use a device that has more."
            ) from error
        raise FuseError(f"{task} ({sentence(error)}); nothing was changed. {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """Return who has to mend an error: the author of a row or of other code that fxfuse called, or fxfuse."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "builtins").partition(".")[0]
        if package == "fxfuse":
            break
        if package not in NOT_USERS:
            return f"It was raised in {frame.f_code.co_name} ({frame.f_code.co_filename}, line {line}); mend that."
    return (
        "This is a fault of fxfuse: please report it with the model; leaving out a part of the model may help until "
        "then."
    )


@contextlib.contextmanager
def collection_waits() -> Iterator[None]:
    """Pause garbage collection inside of the block.

    A pass makes a few objects for each node, and next to no garbage in circles.  Each full collection looks at every
    object of the process, which for large models takes longer than all the rest.
    """
    collecting = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if collecting:
            gc.enable()


def checked_rules(rules: Any) -> tuple[Rule, ...]:
    """Return the rules as a tuple of functions.

    Raises:
        FuseError: if they are neither functions nor names of rules.
    """
    listed = tuple(rules) if isinstance(rules, Iterable) and not isinstance(rules, str) else (rules,)
    found: list[Any] = [RULES.get(rule, rule) if isinstance(rule, str) else rule for rule in listed]
    wrong = [rule for rule in found if not callable(rule)]
    if wrong:
        raise FuseError(
            f"rules={rules!r}: {wrong[0]!r} is no rule; pass a list of functions, such as some of "
            f"fxfuse.extend.DEFAULT_RULES, or of names ({', '.join(RULES)}), or leave it out. Nothing was changed."
        )
    return tuple(found)


def require_options(options: Options) -> None:
    """Raise for what is no option: a text such as "no" would count as true.

    Raises:
        FuseError: a sentence with the offending value and what to do.
    """
    for name in ("allow_copies", "allow_growth", "guards", "inplace"):
        value = getattr(options, name)
        if not isinstance(value, (bool, int)):
            raise FuseError(f"{name}={value!r} is neither True nor False. Nothing was changed.")
    if options.hooks not in ("keep", "observe"):
        raise FuseError(
            f"hooks={options.hooks!r} is not known; pass 'keep' or 'observe', or leave it out. Nothing was changed."
        )


def require_fusable(model: Any, structure: str | None, *, inplace: bool) -> None:
    """Raise for an argument that no part of the pass could do anything with.

    Raises:
        FuseError: a sentence with the offending value and what to do.
    """
    for problem in _problems(model, structure, inplace):
        raise FuseError(f"{problem} Nothing was changed.")


def require_graph(graph_module: Any, constants: Any) -> None:
    """Raise for what is no graph, and for constants that are none of its inputs.

    Raises:
        FuseError: a sentence with the offending value and what to do.
    """
    if not isinstance(graph_module, fx.GraphModule):
        raise FuseError(
            f"fuse_graph changes a torch.fx.GraphModule in place, and got {type(graph_module).__name__}. "
            "Nothing was changed. For modules and exported programs use fx_fuse."
        )
    inputs = {n.name: n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"}
    if constants is not None and not isinstance(constants, Mapping):
        raise FuseError(
            f"constants={constants!r} is no dictionary. Nothing was changed; pass names of placeholders with tensors."
        )
    for name, tensor in (constants or {}).items():
        problem = _problem_of_constant(name, tensor, inputs)
        if problem:
            raise FuseError(f"The constant {name!r} {problem}. Nothing was changed; pass names of placeholders.")


def _problem_of_constant(name: Any, tensor: Any, inputs: dict[str, Any]) -> str:
    if name not in inputs:
        return f"has no placeholder; the inputs are {', '.join(inputs) or 'none'}"
    if not isinstance(tensor, Tensor):
        return f"is no tensor but {type(tensor).__name__}"
    expected = getattr(inputs[name], "shape", tensor.shape)
    same = len(expected) == tensor.ndim and all(a == b for a, b in zip(expected, tensor.shape, strict=True))
    return "" if same else f"has the shape {tuple(tensor.shape)}, and its placeholder {tuple(expected)}"


def _problems(model: Any, structure: str | None, inplace: bool) -> Iterator[str]:  # noqa: FBT001 - private
    if isinstance(model, ExportedProgram):
        if structure == "module" or inplace:
            yield "An ExportedProgram comes back as a new ExportedProgram; leave out structure and inplace."
        yield from _problems_of_tensors([(n, t) for n, t in model.state_dict.items() if isinstance(t, Tensor)])
        return
    if not isinstance(model, nn.Module):
        got = f"and got {type(model).__name__}; pass the model itself."
        yield f"fx_fuse takes a torch.nn.Module or an ExportedProgram, {got}"
        return
    if isinstance(model, torch.jit.ScriptModule):
        yield f"{type(model).__name__} is a scripted module; fuse the model before you script or trace it."
    if is_compiled(model):
        yield "The model is compiled already; fuse it first, then compile the result, or pass model._orig_mod."
    yield from _problems_of_options(model, structure, inplace)
    modules = [(path, module) for module, path in paths_below(model).items()]
    yield from _problems_of_norms(modules, type(model).__name__)
    yield from _problems_of_tensors([(name, tensor) for tensor, name in tensor_paths(model)])


def _problems_of_options(model: nn.Module, structure: str | None, inplace: bool) -> Iterator[str]:  # noqa: FBT001
    if structure not in (None, "graph", "module"):
        yield f"structure={structure!r} is not known; pass 'graph', 'module', or leave it out."
    if inplace and not isinstance(model, fx.GraphModule):
        yield (
            f"inplace=True changes a torch.fx.GraphModule, and got {type(model).__name__}; leave it out, "
            "the result shares all weights that are not folded."
        )
    if inplace and structure == "module":
        yield "inplace=True gives back the GraphModule it got; leave structure out."


def _problems_of_norms(modules: list[tuple[str, nn.Module]], name: str) -> Iterator[str]:
    quantized = [path for path, module in modules if is_quantized(module)]
    norms = [(path, module) for path, module in modules if is_norm(module) and path not in quantized]
    if quantized and not norms:
        yield f"{quantized[0] or name} is quantized, and no norm is left to fold; fuse before you quantize."
    if norms and all(module.training for _, module in norms):
        yield (
            f"{norms[0][0] or name} and every other norm of the model is in training mode, where it uses the "
            "statistics of each batch; call model.eval() first."
        )


def _problems_of_tensors(tensors: list[tuple[str, Tensor]]) -> Iterator[str]:
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        yield f"{lazy[0]} is not initialised yet; run the model once before fusing, so that it gets its size."
    elif tensors and all(tensor.is_meta for _, tensor in tensors):
        yield f"{tensors[0][0]} and all other tensors are on the meta device, without values; load the weights first."
