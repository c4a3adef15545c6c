"""Fold batch norms, and every other constant scale and shift, into the layers around them."""

import importlib
from typing import TYPE_CHECKING, Any

from fxfuse.api import explain, fuse_graph, fx_fuse, lower, optimize
from fxfuse.frontends.conv_bn import fuse_conv_bn
from fxfuse.frontends.fuse_pass import FusePass
from fxfuse.frontends.verify import verify
from fxfuse.modules.example_inputs import Inputs
from fxfuse.operators import register
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "FuseError",
    "FusePass",
    "Inputs",
    "Reason",
    "Report",
    "__version__",
    "explain",
    "fuse_conv_bn",
    "fuse_graph",
    "fx_fuse",
    "lower",
    "optimize",
    "register",
    "verify",
]

if TYPE_CHECKING:
    html_report: ModuleType
else:

    def __getattr__(name: str) -> Any:
        """Import ``fxfuse.html_report`` when it is asked for: nothing else here needs the command line."""
        if name == "html_report":
            return importlib.import_module("fxfuse.cli.html_report")
        raise AttributeError(f"module 'fxfuse' has no attribute {name!r}")
