"""The plan of the weights of a pass, between the model that was captured and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fxfuse.checkpoints.build import plan_of
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram

    from fxfuse.algebra.recording import Recording
    from fxfuse.capture.captured import Capture
    from fxfuse.checkpoints.plan import Plan


def code_constants(captured: Capture) -> list[Tensor]:
    """Return the tensors that graphs read by name: those that are no weights belong to the code.  Ask before a pass."""
    nodes = [(part, node) for part in captured.parts for node in part.graph_module.graph.nodes if node.op == "get_attr"]
    found = [fetch(part.graph_module, str(node.target)) for part, node in nodes]
    model = [] if captured.program is not None else captured.model.buffers()
    return [tensor for tensor in (*found, *model) if isinstance(tensor, Tensor)]


def plan_between(
    recording: Recording, captured: Capture, result: nn.Module | ExportedProgram, constants: list[Tensor]
) -> Plan | None:
    """Return how the weights of the result are computed, None where there are none.

    Args:
        recording: of the rules.
        captured: what they worked on.
        result: what came of it.
        constants: what ``code_constants`` gave.
    """
    before, after = _state(captured.program or captured.model), _state(result)
    made = result.parameters() if isinstance(result, nn.Module) else list(result.state_dict.values())
    return plan_of(recording, before, after, made, constants)


def _state(model: nn.Module | ExportedProgram) -> Mapping[str, Any]:
    return model.state_dict(keep_vars=True) if isinstance(model, nn.Module) else model.state_dict
