"""The tools of `comparison.py`, each as a function from a model to what it makes of it."""

# ruff: noqa: INP001 - beside a script, and no package

from __future__ import annotations

import copy
import functools
import importlib
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import comparison_onnx
import torch
from comparison_measure import ARITHMETIC, ROUNDING, Work, count, error, outputs
from comparison_onnx import Exported
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fxfuse import fx_fuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from comparison_measure import Run


class NotAskedError(Exception):
    """The tool has nothing to do with this case."""


@dataclass(frozen=True)
class Made:
    """What a tool made.

    Attributes:
        run: takes the input of the model.
        work: what is left.
        before: what the model itself had, counted in the same form; None if that form has no norms.
    """

    run: Run
    work: Work
    before: Work | None


@dataclass
class Subject:
    """One model: each tool is given a new copy of it.

    Attributes:
        make: makes the model and its input.
        names: lists of names for `fuse_modules`.
    """

    make: Callable[[], tuple[nn.Module, Tensor]]
    names: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def exported(self) -> Exported:
        """The model as ONNX, for all tools that begin there."""
        return Exported(*self.make())

    @cached_property
    def exports_right(self) -> bool:
        """Whether the tools for ONNX are given what they can be judged by."""
        model, x = self.make()
        given = outputs(comparison_onnx.runner(self.exported.plain), x)
        return error(outputs(model, x), given) <= ROUNDING[x.dtype]

    @cached_property
    def work(self) -> Work:
        """What the model itself runs."""
        return count(*self.make())


def _module(name: str) -> Any:
    """Imported by name: some of them are optional, and of torch some may go."""
    return importlib.import_module(name)


def fxfuse(model: nn.Module, x: Tensor, _: Subject) -> Run:
    """`fx_fuse(model, example_inputs)`."""
    return fx_fuse(model, (x,))


def torch_fx(model: nn.Module, _x: Tensor, _: Subject) -> Run:
    """`torch.fx.experimental.optimization.fuse(model)`."""
    return _module("torch.fx.experimental.optimization").fuse(model)


def fuse_modules(model: nn.Module, _x: Tensor, subject: Subject) -> Run:
    """`torch.ao.quantization.fuse_modules(model, names)`, with the names of an expert."""
    if not subject.names:
        raise NotAskedError
    return _module("torch.ao.quantization").fuse_modules(model, [list(names) for names in subject.names])


def fuse_fx(model: nn.Module, _x: Tensor, _: Subject) -> Run:
    """`torch.ao.quantization.quantize_fx.fuse_fx(model)`."""
    return _module("torch.ao.quantization.quantize_fx").fuse_fx(model)


def pt2e(model: nn.Module, x: Tensor, _: Subject) -> Run:
    """`torchao.quantization.pt2e.quantize_pt2e.prepare_pt2e(exported, quantizer)`; the quantizer asks for nothing."""
    prepare = _module("torchao.quantization.pt2e.quantize_pt2e").prepare_pt2e
    base = _module("torchao.quantization.pt2e.quantizer").Quantizer
    nothing = {name: lambda _, graph: graph for name in ("annotate", "validate")}
    return prepare(torch.export.export(model, (x,)).module(), type("Nothing", (base,), nothing)())


def jit(model: nn.Module, x: Tensor, _: Subject) -> Run:
    """`torch.jit.freeze(torch.jit.script(model))`, or traced where it cannot be scripted or the script does not run."""
    try:
        scripted = torch.jit.script(model)
        scripted(x)
    except Exception:  # noqa: BLE001 - it raises of many kinds
        scripted = torch.jit.trace(model, x)
    return torch.jit.freeze(scripted)


def timm(model: nn.Module, _x: Tensor, _: Subject) -> Run:
    """`timm.utils.reparameterize_model(model)`."""
    return _module("timm.utils").reparameterize_model(model)


def children(model: nn.Module, _x: Tensor, _: Subject) -> Run:
    """The walk over children of many blog posts, and of mmcv: a norm goes into the convolution registered before it.

    It changes the model that it is given, by design; it gets a copy.
    """
    model = copy.deepcopy(model)
    _walk(model)
    return model


def _walk(module: nn.Module) -> None:
    last = ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and last:
            module._modules[last] = fuse_conv_bn_eval(module.get_submodule(last), child)  # type: ignore[type-var]
            module._modules[name] = nn.Identity()
            last = ""
        elif isinstance(child, nn.Conv2d):
            last = name
        else:
            _walk(child)


def inductor(model: nn.Module, x: Tensor, _: Subject) -> Made:
    """`torch.compile(model)` with `torch._inductor.config.freezing`; what is left stands in the graph it lowers."""
    left: list[str] = []

    def look(graph: fx.Graph) -> None:
        left.extend(t.overloadpacket.__name__ for n in graph.nodes if isinstance(t := n.target, torch._ops.OpOverload))

    torch._dynamo.reset()
    options = {"freezing": True, "fx_graph_cache": False, "compile_threads": 1, "post_grad_custom_post_pass": look}
    with torch.no_grad(), _module("torch._inductor.config").patch(options):
        compiled = torch.compile(model)
        compiled(x)
    # Batch norms are arithmetic there.
    return Made(compiled, Work(0, sum(name in ARITHMETIC for name in left)), None)


def onnx(how: str, _model: nn.Module, _x: Tensor, subject: Subject) -> Made:
    """Export, then one of the tools for ONNX."""
    if how != "by_torch" and not subject.exports_right:
        raise NotAskedError
    made = getattr(subject.exported, how)()
    work, before = (Work(*comparison_onnx.count(proto)) for proto in (made, subject.exported.plain))
    return Made(comparison_onnx.runner(made), work, before)


# The name of a tool -> the function, and the packages that it needs.
TOOLS: dict[str, tuple[Callable[[nn.Module, Tensor, Subject], Any], tuple[str, ...]]] = {
    "fxfuse": (fxfuse, ()),
    "torch.fx": (torch_fx, ()),
    "fuse_modules": (fuse_modules, ()),
    "fuse_fx": (fuse_fx, ()),
    "pt2e": (pt2e, ("torchao",)),
    "jit.freeze": (jit, ()),
    "inductor": (inductor, ()),
    "timm": (timm, ("timm",)),
    "torch.onnx": (functools.partial(onnx, "by_torch"), ("onnx", "onnxscript", "onnxruntime")),
    "onnxruntime": (functools.partial(onnx, "by_onnxruntime"), ("onnx", "onnxscript", "onnxruntime")),
    "onnxslim": (functools.partial(onnx, "by_onnxslim"), ("onnx", "onnxscript", "onnxruntime", "onnxslim")),
    "onnxsim": (functools.partial(onnx, "by_onnxsim"), ("onnx", "onnxscript", "onnxruntime", "onnxsim")),
    "children": (children, ()),
}


def apply(name: str, model: nn.Module, x: Tensor, subject: Subject) -> tuple[Made, float]:
    """Let a tool do its work; what is left, and the seconds it took, without the export to ONNX."""
    tool, packages = TOOLS[name]
    if "onnx" in packages:
        _ = subject.exported
    start = time.perf_counter()
    made = tool(model, x, subject)
    seconds = time.perf_counter() - start
    return made if isinstance(made, Made) else Made(made, count(made, x), subject.work), seconds
