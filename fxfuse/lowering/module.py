"""What comes back: a module that is called as the fused one is, and runs its kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from fxfuse.lowering.runner import Runner
from fxfuse.modules.lookup import REGISTRIES
from fxfuse.report.errors import FuseError
from fxfuse.report.lowered import report_of

if TYPE_CHECKING:
    from fxfuse.report.lowered import Lowered

_EXPORT = (
    "A lowered model calls kernels of this machine, and cannot be exported, scripted or traced; nothing was done. "
    "Export the fused model: lowered.fused."
)


class LoweredModule(nn.Module):
    """A fused model of which each layer, with what follows it, is one kernel; made by ``fxfuse.lower``.

    Modules, parameters, buffers and ``state_dict`` are those of the fused model, which it holds.  The packed weights
    are made on first use, and again after the weights were loaded, moved, converted or copied.

    Example:
        >>> import torch
        >>> from fxfuse import fx_fuse, lower
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
        >>> fast = lower(fx_fuse(model))
        >>> fast(torch.randn(2, 3, 16, 16)).shape, fast.fallbacks
        (torch.Size([2, 8, 14, 14]), 0)

    Attributes:
        fused: the fused model, which shares all tensors: export, script, trace or train this one.
    """

    def __init__(self, fused: fx.GraphModule, emitter: Any) -> None:
        """Share all that ``fused`` holds, and own it; the kernels are made when they are needed."""
        super().__init__()
        self.__dict__.update({name: fused.__dict__[name] for name in REGISTRIES if name in fused.__dict__})
        runner = Runner(fused, self._run_fused, lambda: fused, emitter, self._tell, traced=self._refuse)
        self.__dict__.update(fused=fused, _runner=runner, _made_of=(fused, emitter))  # the fused model is no child

    if TYPE_CHECKING:
        fused: fx.GraphModule
        _runner: Runner

    @property
    def fallbacks(self) -> int:
        """How many calls ran as in the fused model, in whole or in part, since no kernel takes them."""
        return self._runner.fallbacks

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernels, or the fused model where they do not take the call.

        Raises:
            FuseError: if the model is being exported, scripted or traced, or an input requires gradients.
        """
        if isinstance(args, fx.Proxy):  # torch.fx passes one for all arguments
            raise FuseError(_EXPORT)
        return self._runner(*args, **kwargs)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return self.fused(*args, **kwargs)
        raise FuseError(_EXPORT)

    def _run_fused(self, *args: Any, **kwargs: Any) -> Any:
        return self.fused.forward(*args, **kwargs)  # by the code that it has now

    def _tell(self, layers: tuple[Lowered, ...]) -> None:
        report_of(self.fused, layers).attach(self)

    def train(self, mode: bool = True) -> LoweredModule:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of the fused model too."""
        self.fused.training = mode
        super().train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        """Find attributes and methods that the fused model has kept."""
        known = name in self._parameters or name in self._buffers or name in self._modules
        if known or name.startswith("__") or "fused" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.fused, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle the fused model; packed weights can be neither copied nor stored, and are made anew."""
        own = (*REGISTRIES, "fused", "_runner", "_made_of")
        return LoweredModule, self._made_of, {n: v for n, v in self.__dict__.items() if n not in own}

    def __prepare_scriptable__(self) -> Any:
        """Say what to script."""
        raise FuseError(_EXPORT)
