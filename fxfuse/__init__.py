"""Fold batch norms, and every other constant scale and shift, into the layers around them."""

from fxfuse.api import explain, fx_fuse
from fxfuse.operators import register
from fxfuse.pair import fuse_conv_bn
from fxfuse.report import FuseError, Reason, Report
from fxfuse.verify import verify

__version__ = "0.1.0"

__all__ = ["FuseError", "Reason", "Report", "__version__", "explain", "fuse_conv_bn", "fx_fuse", "register", "verify"]
