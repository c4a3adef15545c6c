"""Fold batch norms, and every other constant scale and shift, into the layers around them."""

from fxfuse.api import explain, fuse_graph, fx_fuse
from fxfuse.fuse_pass import FusePass
from fxfuse.operators import register
from fxfuse.pair import fuse_conv_bn
from fxfuse.reasons import Reason
from fxfuse.report import FuseError, Report
from fxfuse.verify import verify

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
    "register",
    "verify",
]
