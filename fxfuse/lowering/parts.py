"""A model that keeps its class: each module that can be traced runs its own forward by kernels."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.capture.capture import capture
from fxfuse.capture.tracer import Tracer
from fxfuse.lowering.runner import Runner
from fxfuse.modules.derived_class import Derived, OwnForward, can_be_derived, with_change
from fxfuse.modules.lookup import shallow_copy
from fxfuse.report.lowered import Lowered, report_of
from fxfuse.write_back.copies import SeparateOnConversion, copies_of

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 3
"""Of fewer layers kernels save less than it costs to bring what they give into the order that untraced code expects."""

_RUNNER = "_fxfuse_runner"
_lock = threading.RLock()


@dataclass(frozen=True)
class ByKernels:
    """The change of a class: its forward runs by kernels; it is pickled by this recipe, and makes them anew.

    Attributes:
        path: the path of the module in the model.
        emitter: makes the kernels.
    """

    path: str
    emitter: Any

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Return a forward that runs kernels in place of that of ``base``."""

        @functools.wraps(base.forward)
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.runner(module, base)(*args, **kwargs)

        return forward

    def runner(self, module: nn.Module, base: type[nn.Module]) -> Runner:
        """Return what runs a module; a copy of the module gets another one."""
        runner = module.__dict__.get(_RUNNER)
        if runner is None or runner.module is not module:
            with _lock:
                plain = functools.partial(base.forward, module)
                runner = _OfPart(module, plain, lambda: _graph_of(module, base), self.emitter, path=self.path)
                module.__dict__[_RUNNER] = runner
        return runner


class _OfPart(Runner):
    def __reduce__(self) -> Any:
        """Come out of copies and pickles as None, since a copy makes its own."""
        return type(None), ()


def with_lowered_parts(model: nn.Module, emitter: Any) -> nn.Module | None:
    """Return a copy of a model, sharing all tensors, of which the traced modules run kernels; None if there are none.

    Only their forwards change: classes, attributes, children and methods stay, for code that is not traced.
    """
    result, layers = copies_of(model, {})[model], list[Lowered]()
    result.__dict__["_apply"] = SeparateOnConversion(result)
    parts = {part.module: part.path for part in capture(result).parts if _may_run_kernels(part.module)}
    inside = {inner for module in parts for inner in module.modules() if inner is not module}
    for module, path in parts.items():
        change = ByKernels(path, emitter)
        built = None if module in inside else change.runner(module, type(module)).current()
        if built is None or len(built.layers) < FEW:
            module.__dict__.pop(_RUNNER, None)
        else:
            layers += built.layers
            module.__class__ = type(with_change(module, change))
    report_of(model, tuple(layers)).attach(result)
    return result if layers else None


def _may_run_kernels(module: nn.Module) -> bool:
    """Whether what a trace finds is all that a module does: classes that check what they are called with do more."""
    derived = (inner for inner in module.modules() if isinstance(inner, Derived))
    checks = any(not isinstance(inner._fxfuse_recipe[1], OwnForward) for inner in derived)
    return not checks and not isinstance(module, fx.GraphModule) and can_be_derived(type(module))


def _graph_of(module: nn.Module, base: type[nn.Module]) -> fx.GraphModule:
    """Return the graph of a module's forward in ``base``, with the modules and tensors that it has itself."""
    plain = shallow_copy(module)
    plain.__class__ = base
    draft = Tracer().capture(plain)
    found = fx.GraphModule(nn.Module(), fx.Graph(), base.__name__)
    literals = {name: value for name, value in draft._buffers.items() if name not in module._buffers}
    found.__dict__.update(literals, **{name: module.__dict__[name] for name in ("_modules", "_parameters", "_buffers")})
    found.graph = draft.graph
    return found
