"""Example inputs, and what a model gives on them, to compare a result with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxfuse.capture.exported_program import runnable
from fxfuse.capture.recording import eager
from fxfuse.modules.comparison import agree, amplifies_rounding, difference
from fxfuse.modules.example_inputs import Inputs, reference
from fxfuse.pipeline.norm_kernels import NormKernels
from fxfuse.report.errors import FuseError, out_of_memory
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


@dataclass(frozen=True, eq=False)
class Examples:
    """Calls of a model, and what it gives.

    Attributes:
        model: the model.
        calls: the calls.
        expected: what each gives.
        means: the running means of the norms that ran in the last result, by their addresses.
    """

    model: nn.Module
    calls: list[Inputs]
    expected: list[Any]
    means: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(model: nn.Module, example_inputs: Any) -> Examples:
        """Run the model on what the user passes.

        Raises:
            FuseError: if it raises.
        """
        calls = Inputs.calls_of(example_inputs)
        return Examples(model, calls, [reference(model, inputs) for inputs in calls])

    def gap(self, result: nn.Module | ExportedProgram, *, always: bool = False) -> float | None:
        """Return the difference that is more than rounding, infinite where a result raises; None for none.

        ``means`` says afterwards which norms ran.

        Args:
            result: a fused model.
            always: also where nothing was folded.
        """
        model = runnable(result)
        with eager(), NormKernels(self.means):
            gap = self._gap(model)
        if gap is None or not (always or Report.of(result)):
            return None
        return self._gap(model)  # where nobody watches

    def _gap(self, model: nn.Module) -> float | None:
        for call, expected in zip(self.calls, self.expected, strict=True):
            try:
                given = reference(model, call)
            except FuseError as error:
                if isinstance(error.__cause__, Exception) and out_of_memory(error.__cause__):
                    raise
                return float("inf")
            if not agree(expected, given, [*model.parameters(), *model.buffers()]):
                return difference(expected, given)
        return None

    def amplified(self) -> bool:
        """Whether the model gives something else on inputs that differ by rounding."""
        return any(amplifies_rounding(self.model, *pair) for pair in zip(self.calls, self.expected, strict=True))
