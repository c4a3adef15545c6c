"""What the notebooks measure with, which is what ``fxfuse bench`` measures with."""

from fxfuse.cli.measure import time_in_turn
from fxfuse.cli.models import randomize, without_norms
from fxfuse.modules.kernels import Kernels, count_kernels

__all__ = ["Kernels", "count_kernels", "randomize", "time_in_turn", "without_norms"]
