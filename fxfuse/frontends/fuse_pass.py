"""The pass for a ``PassManager`` of torch.fx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxfuse.api import fuse_graph
from fxfuse.pipeline.entry import checked_rules, require_options
from fxfuse.pipeline.options import GraphOptions, Options
from fxfuse.report.errors import FuseError
from fxfuse.report.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx
    from typing_extensions import Unpack

    from fxfuse.report.decision import Decision


class FusePass(PassBase):
    """A pass for torch.fx's ``PassManager``: folds in place, and never raises a ``FuseError``.

    A graph that cannot be fused stays as it is.  ``call`` returns a ``PassResult`` that says whether it changed.

    Example:
        >>> import torch
        >>> from torch.fx.passes.infra.pass_manager import PassManager
        >>> from fxfuse import FusePass
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> result = PassManager(passes=[FusePass()])(torch.fx.symbolic_trace(model))
        >>> result.modified, [node.name for node in result.graph_module.graph.nodes]
        (True, ['input_1', '_0', 'output'])

    A ``PassManager`` calls its passes several times, on several graphs: each call leaves a report in ``reports``.

    Attributes:
        reports: what was done to each graph, in the order of the calls; where a graph was left alone as a whole, the
            note of an empty report says why.
        error: why the last graph was left alone as a whole, None where it was not.
    """

    def __init__(self, constants: Mapping[str, Tensor] | None = None, **options: Unpack[GraphOptions]) -> None:
        """Keep the options of ``fuse_graph``.

        Args:
            constants: as for ``fuse_graph``.
            options: the other options of ``fuse_graph``.

        Raises:
            FuseError: if a rule or an option is none.
        """
        super().__init__()
        unknown = sorted(options.keys() - GraphOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"FusePass() got an unexpected keyword argument {unknown[0]!r}")
        if "rules" in options:
            options["rules"] = checked_rules(options["rules"])
        given: dict[str, Any] = {"rules": (), **options}
        require_options(Options(**given))
        self.constants = constants
        self.options = options
        self.reports: list[Report] = []
        self.error: FuseError | None = None

    @property
    def report(self) -> Report:
        """What was done to the last graph; an empty report before the first."""
        return self.reports[-1] if self.reports else Report()

    @property
    def folded(self) -> tuple[Decision, ...]:
        """What was folded in all graphs."""
        return tuple(decision for report in self.reports for decision in report.folded)

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Fold in one graph."""
        self.error = None
        try:
            self.reports.append(fuse_graph(graph_module, self.constants, **self.options))
        except FuseError as error:
            self.error = error
            self.reports.append(Report(notes=(f"The graph was left as it was: {error}",)))
        return PassResult(graph_module, bool(self.report))
