"""What the notebooks measure with, which is what ``fxfuse bench`` measures with."""

from fxfuse.cli.measure import Kernels, count_kernels, time_in_turn
from fxfuse.cli.models import randomize, without_norms

__all__ = ["Kernels", "count_kernels", "randomize", "time_in_turn", "without_norms"]
