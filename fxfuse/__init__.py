"""Fold batch norms, and every other constant scale and shift, into the layers around them."""

from fxfuse.api import explain, fuse_graph, fx_fuse, lower, optimize
from fxfuse.frontends.conv_bn import fuse_conv_bn
from fxfuse.frontends.fuse_pass import FusePass
from fxfuse.frontends.verify import verify
from fxfuse.operators import register
from fxfuse.report.errors import FuseError
from fxfuse.report.reasons import Reason
from fxfuse.report.report import Report

__version__ = "0.1.0"

__all__ = [
    "FuseError",
    "FusePass",
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
