"""Example inputs, and what a model gives on them, to compare a result with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fxfuse.capture.exported_program import runnable
from fxfuse.modules.comparison import agree, amplifies_rounding, difference
from fxfuse.modules.example_inputs import Inputs, reference
from fxfuse.report.errors import FuseError, out_of_memory
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


@dataclass(frozen=True, eq=False)
class Examples:
    """Calls of a model, and what it gives.

    Attributes:
        model: the model.
        calls: the calls.
        expected: what each gives.
    """

    model: nn.Module
    calls: list[Inputs]
    expected: list[Any]

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

        Args:
            result: a fused model.
            always: also where nothing was folded.
        """
        if not always and not Report.of(result):
            return None
        model = runnable(result)
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
