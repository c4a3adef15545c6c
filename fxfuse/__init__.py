"""Fold batch norms, and every other constant scale and shift, into the layers around them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from fxfuse.api import explain, fuse_graph, fx_fuse, lower, optimize
    from fxfuse.checkpoints.plan import Plan
    from fxfuse.checkpoints.refold import refold
    from fxfuse.frontends.conv_bn import fuse_conv_bn
    from fxfuse.frontends.fuse_pass import FusePass
    from fxfuse.frontends.verify import verify
    from fxfuse.modules.example_inputs import Inputs
    from fxfuse.operators import register
    from fxfuse.report.errors import FuseError
    from fxfuse.report.reasons import Reason
    from fxfuse.report.report import Report

__version__ = "0.1.0"

__all__ = [
    "FuseError",
    "FusePass",
    "Inputs",
    "Plan",
    "Reason",
    "Report",
    "__version__",
    "explain",
    "fuse_conv_bn",
    "fuse_graph",
    "fx_fuse",
    "lower",
    "optimize",
    "refold",
    "register",
    "verify",
]

# Where each name is; importing it imports torch, which takes seconds that `fxfuse --help` need not wait for.
_HOMES = {
    **dict.fromkeys(("explain", "fuse_graph", "fx_fuse", "lower", "optimize"), "fxfuse.api"),
    "FuseError": "fxfuse.report.errors",
    "FusePass": "fxfuse.frontends.fuse_pass",
    "Inputs": "fxfuse.modules.example_inputs",
    "Plan": "fxfuse.checkpoints.plan",
    "Reason": "fxfuse.report.reasons",
    "Report": "fxfuse.report.report",
    "fuse_conv_bn": "fxfuse.frontends.conv_bn",
    "refold": "fxfuse.checkpoints.refold",
    "register": "fxfuse.operators",
    "verify": "fxfuse.frontends.verify",
}

if TYPE_CHECKING:
    html_report: ModuleType
else:

    def __getattr__(name: str) -> Any:
        """Import a name when it is asked for."""
        if name == "html_report":
            return importlib.import_module("fxfuse.cli.html_report")
        if name not in _HOMES:
            raise AttributeError(f"module 'fxfuse' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        """Return the public names, imported or not."""
        return sorted({*globals(), *__all__})
