"""Every norm kernel that runs on the example inputs has a line in the report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fxfuse.capture.exported_program import runnable
from fxfuse.graph.registry import OPERATORS
from fxfuse.modules.lookup import tensor_paths
from fxfuse.report.decision import Decision
from fxfuse.report.reasons import Reason
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_WHY = "a norm runs there on the example inputs, and no graph contains it"


class NormKernels(TorchDispatchMode):
    """Notes the running means of the norms that run inside of it, also in code that nobody can look into."""

    supports_higher_order_operators = True

    def __init__(self, means: dict[int, Tensor]) -> None:
        """Begin with none; what is noted goes there, by its address."""
        super().__init__()  # type: ignore[no-untyped-call] # of torch's
        self.means = means
        means.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a kernel, and note which norm it is."""
        del types
        row = OPERATORS.get(func)
        if row is not None and "running_mean" in row.arguments:
            mean = {**dict(zip(row.names, args, strict=False)), **(kwargs or {})}.get("running_mean")
            if isinstance(mean, Tensor):
                self.means[mean.data_ptr()] = mean
        return func(*args, **(kwargs or {}))


def tell_all(result: nn.Module | ExportedProgram, means: dict[int, Tensor]) -> None:
    """Add a line to the report of a result for every norm that ran in it and has none.

    Args:
        result: what ``fx_fuse`` is about to return.
        means: the running means of the norms that ran in it on example inputs, by their addresses.
    """
    report = Report.of(result)
    untold = _untold(runnable(result), report, means)
    if untold:
        replace(report, decisions=(*report.decisions, *untold)).attach(
            result if isinstance(result, nn.Module) else result.graph_module
        )


def _untold(model: nn.Module, report: Report, means: dict[int, Tensor]) -> list[Decision]:
    """Return a decision for each norm that ran and of which the report says nothing."""
    told = [decision.path for decision in report.skipped if decision.subject != "merge"]
    owners = {tensor.data_ptr(): name.rpartition(".")[0] for tensor, name in tensor_paths(model)}
    paths = [owners.get(address, "") for address in means]
    unmatched = [path for path in paths if path not in told]
    # The report names a norm that is a function by the forward it stands in, not by where its statistics are.
    others = len([path for path in told if path not in paths])
    facts = {"detail": _WHY, "advice": ""}
    name = type(model).__name__
    return [
        Decision(
            "capture",
            path or name,
            "batch_norm",
            (),
            Reason.OPAQUE,
            Reason.OPAQUE.sentence(value=path or name, **facts),
        )
        for path in unmatched[others:]
    ]
