"""The functions that users call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from torch import Tensor, fx, nn

from fxfuse.lowering.lower import lowered
from fxfuse.pipeline.entry import checked_rules, require_graph, run_pass
from fxfuse.pipeline.options import Options, Structure
from fxfuse.pipeline.sizes import sized_report
from fxfuse.report.report import Report
from fxfuse.rules import DEFAULT_RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.export import ExportedProgram
    from typing_extensions import Unpack

    from fxfuse.capture.hooks import Hooks
    from fxfuse.pipeline.options import FuseOptions, GraphOptions

M = TypeVar("M", bound=nn.Module)


@overload
def fx_fuse(
    model: fx.GraphModule,
    example_inputs: Any = None,
    *,
    structure: Structure | None = None,
    inplace: bool = False,
    **options: Unpack[GraphOptions],
) -> fx.GraphModule: ...
@overload
def fx_fuse(
    model: ExportedProgram,
    example_inputs: Any = None,
    *,
    structure: Literal["graph"] | None = None,
    **options: Unpack[GraphOptions],
) -> ExportedProgram: ...
@overload
def fx_fuse(
    model: M, example_inputs: Any = None, *, structure: Literal["module"], **options: Unpack[GraphOptions]
) -> M: ...
@overload
def fx_fuse(
    model: nn.Module, example_inputs: Any = None, *, structure: Literal["graph"], **options: Unpack[GraphOptions]
) -> fx.GraphModule: ...
@overload
def fx_fuse(
    model: nn.Module, example_inputs: Any = None, *, structure: Structure | None = None, **options: Unpack[GraphOptions]
) -> nn.Module: ...


def fx_fuse(  # noqa: PLR0913 - the options of the pass
    model: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    *,
    rules: Iterable[Rule | str] = DEFAULT_RULES,
    structure: Structure | None = None,
    allow_copies: bool = True,
    allow_growth: bool = False,
    guards: bool = True,
    inplace: bool = False,
    hooks: Hooks = "keep",
) -> nn.Module | ExportedProgram:
    """Fold batch norms, and other constant scales and shifts, into the convolutions and linears around them.

    Branches and chains of convolutions or linears that are one linear map become one layer.

    The model is not modified.  Norms in training mode are left alone; if all of them train, that is an error.
    Weights that are not folded are shared with the argument.  ``Report.of(result)`` says what was
    done, and why the rest was not.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> [name for name, _ in fx_fuse(model.eval()).named_children()]
        ['0', '2']

    Args:
        model: a module, traceable as a whole or not, a ``GraphModule``, or an ``ExportedProgram``.
        example_inputs: what the model is called with: a tensor, a tuple of positional arguments, or a dict of
            keyword arguments.  Proves shapes, checks the capture and the result, and says with which flags and
            numbers the model is called.
        rules: the rules to apply, by name (``["fold_upstream", "merge_branches"]``) or as functions, those of
            fxfuse or your own, in the order in which they are tried; by default all of
            ``fxfuse.extend.DEFAULT_RULES``.
        structure: ``"graph"`` for a ``GraphModule``; ``"module"`` for a model of the same class, with its
            attributes and methods.  By default a graph if the model can be traced as a whole, and has no hooks of its
            own; else modules.
        allow_copies: give a call that shares its weights with others a copy of its own; False refuses such folds.
        allow_growth: merge layers also where the one that is left takes more multiply-adds than all of them before.
        guards: allow folds that rest on inputs being batched, and leave a check of the number of axes in the model,
            which raises a ``ValueError``.  False leaves no checks, and allows only what ``example_inputs`` have shown.
        inplace: change the ``GraphModule`` that is given, all of it or, if anything fails, nothing.
        hooks: ``"keep"`` leaves everything in a module with hooks as it is, since a hook can do anything;
            ``"observe"`` says that hooks only look at inputs and outputs, so that the layers inside fold.

    Returns:
        A ``GraphModule``, a model of the same class, or an ``ExportedProgram``.

    Raises:
        FuseError: if the model or the inputs cannot be used; nothing is changed then.
    """
    options = Options(checked_rules(rules), structure, allow_copies, guards, inplace, allow_growth, hooks=hooks)
    return run_pass(model, example_inputs, options)[1]


def explain(model: nn.Module | ExportedProgram, example_inputs: Any = None, **options: Unpack[FuseOptions]) -> Report:
    """Say what ``fx_fuse`` would do, and why it would leave the rest; the model is not changed.

    Example:
        >>> import torch
        >>> from fxfuse import explain
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.BatchNorm2d(8))
        >>> explain(model.eval()).skipped[0].reason.name
        'NOT_LINEAR'

    Args:
        model: as for ``fx_fuse``.
        example_inputs: as for ``fx_fuse``.
        options: the other options of ``fx_fuse``; ``inplace`` changes nothing here.

    Returns:
        The report that ``fx_fuse`` would leave in its result, with the sizes of both models.

    Raises:
        FuseError: if the model or the inputs cannot be used.
    """
    fuse: Any = fx_fuse  # a model of either kind
    return sized_report(model, fuse(model, example_inputs, **{**options, "inplace": False}), example_inputs)


def fuse_graph(
    graph_module: fx.GraphModule,
    constants: Mapping[str, Tensor] | None = None,
    *,
    rules: Iterable[Rule | str] = DEFAULT_RULES,
    allow_copies: bool = True,
    allow_growth: bool = False,
    guards: bool = True,
    hooks: Hooks = "keep",
) -> Report:
    """Fold in a ``GraphModule``, in place: for compiler pipelines.

    Example:
        >>> import torch
        >>> from fxfuse import fuse_graph
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> graph_module = torch.fx.symbolic_trace(model)
        >>> fuse_graph(graph_module).folded[0].into
        ('0',)
        >>> [node.name for node in graph_module.graph.nodes]
        ['input_1', '_0', 'output']

    Args:
        graph_module: a graph of modules, functions, or ATen operations; it is changed, or left as it was.
        constants: names of placeholders -> the tensor that is passed there at every call, for graphs whose parameters
            are inputs.  The placeholders stay; a folded weight becomes a parameter of the ``GraphModule``.
        rules: as for ``fx_fuse``.
        allow_copies: as for ``fx_fuse``.
        allow_growth: as for ``fx_fuse``.
        guards: as for ``fx_fuse``.
        hooks: as for ``fx_fuse``.

    Returns:
        What was done; also in ``Report.of(graph_module)``.

    Raises:
        FuseError: if this is no graph, or a constant is no tensor or has no placeholder; nothing is changed then.
    """
    require_graph(graph_module, constants)
    found = checked_rules(rules)
    options = Options(
        found,
        allow_copies=allow_copies,
        guards=guards,
        inplace=True,
        allow_growth=allow_growth,
        constants=constants or {},
        hooks=hooks,
    )
    return Report.of(run_pass(graph_module, None, options)[1])


def lower(fused: nn.Module, example_inputs: Any = None, *, exact_nan: bool = False) -> Any:
    """Make each layer of a fused model one kernel, with the sum and the activation behind it: fast in eager mode.

    It computes what the fused model does, for inference only.  The kernels ship with torch: oneDNN's on a CPU, cuDNN's
    and one of Triton on a GPU.  They take float32, and bfloat16 and float16 where the processor has them.  Calls
    that they do not take run as in the fused model; ``fallbacks`` of the result counts these.  The argument is not
    changed; weights are shared with it, and the kernels keep a second copy of them in an order of their own.

    Example:
        >>> import torch
        >>> from fxfuse import Report, fx_fuse, lower
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
        >>> fast = lower(fx_fuse(model))
        >>> [(one.path, one.takes) for one in Report.of(fast).kernels]
        [('0', ('relu',))]

    Args:
        fused: what ``fx_fuse`` returned: a ``GraphModule``, or a model of its own class, of which each module that can
            be traced and has three layers or more runs its own forward by kernels.
        example_inputs: what the model is called with, as for ``fx_fuse``: the result is compared with the fused model
            on them, and the weights are packed for their size.  Without, the first call of each kind (number of axes,
            dtype, order in memory) runs the fused model.
        exact_nan: let activations give NaN for NaN, as torch's do; oneDNN's ReLU, ReLU6, Hardtanh, Hardsigmoid and
            Hardswish give a finite number, and are not used then.

    Returns:
        For a ``GraphModule`` a ``LoweredModule``, of which ``fused`` is the model to export; else a model of the same
        class, which can be exported itself.

    Raises:
        FuseError: if there is nothing to lower, or the result differs on the example inputs; nothing is changed then.
    """
    return lowered(fused, example_inputs, exact_nan=exact_nan)


def optimize(model: nn.Module, example_inputs: Any) -> Any:
    """Fuse a model, and lower it: one line for who only wants it to be fast.

    Example:
        >>> import torch
        >>> from fxfuse import optimize
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
        >>> image = torch.randn(1, 3, 16, 16)
        >>> torch.allclose(optimize(model, image)(image), model(image), atol=1e-5)
        True

    Args:
        model: as for ``fx_fuse``.
        example_inputs: as for ``fx_fuse``.

    Returns:
        What ``lower`` returns for the fused model.

    Raises:
        FuseError: as ``fx_fuse`` and ``lower``.
    """
    return lower(fx_fuse(model, example_inputs), example_inputs)
