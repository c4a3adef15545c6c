"""What was captured of a model: graphs, and what was left whole."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from fxfuse.capture.lifted import copy_of
from fxfuse.capture.members import Members, forwards_of
from fxfuse.capture.names import Names
from fxfuse.capture.untraced_code import Code
from fxfuse.modules.lookup import fetch, paths_below

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn
    from torch.export import ExportedProgram

    from fxfuse.graph.lazy_graph_module import Draft
    from fxfuse.report.reasons import Refusal


# What a layer notes of itself, and what gives all of it.
_NOTED = frozenset(
    "weight bias in_channels out_channels in_features out_features num_features kernel_size stride padding dilation "
    "groups padding_mode parameters named_parameters state_dict buffers named_buffers".split()
)


class Region(NamedTuple):
    """Where the graph of a program calls another graph.

    Attributes:
        parent: the position, among all parts, of the graph that calls it.
        call: the name of the node that does.
        position: which of the graphs it is that the node calls.
    """

    parent: int
    call: str
    position: int


@dataclass(frozen=True, eq=False)
class Part:
    """A module of which the forward was captured.

    Attributes:
        module: the module.
        path: its path in the model, empty for the model itself.
        graph_module: its graph.
        assumed: why the graph holds only under an assumption, empty for a proof.
        specialised: arguments for which it holds at one value only.
        passed: arguments that it is known to be called with.
        wrongly_traced: modules inside that were left whole, since their trace was seen to be wrong.
        by_keyword: modules inside that it calls with keywords.
        recorded: it is a run on example inputs, and holds for that.
        region: where another graph of a program calls this one; None for all others.
        shared: who else reads the tensors of a region, by their ids.
    """

    module: nn.Module
    path: str
    graph_module: Draft
    assumed: str = ""
    specialised: Mapping[str, Any] = field(default_factory=dict)
    passed: Mapping[str, Any] = field(default_factory=dict)
    wrongly_traced: Collection[nn.Module] = ()
    by_keyword: Collection[nn.Module] = ()
    recorded: bool = False
    region: Region | None = None
    shared: Mapping[int, Collection[str]] = field(default_factory=dict)


@dataclass
class Capture:
    """Everything that could be captured of a model.

    Attributes:
        parts: the captured graphs.
        opaque: modules of which the own forward was not captured, and why.
        as_is: other modules that run as they are, and why: in them there is nothing to fold, or it stays.
        frozen: modules that must stay what they are, and why.
        given: whether example inputs were given.
        by_name: what untraced code may use by itself, where it was watched as well.
        program: the exported program that was captured, if it was one.
        lifted: paths in the captured graph -> tensors that its caller passes at every call.
        placeholders: the same paths -> the placeholders for these.
    """

    model: nn.Module
    parts: list[Part] = field(default_factory=list)
    opaque: dict[nn.Module, str] = field(default_factory=dict)
    as_is: dict[nn.Module, str] = field(default_factory=dict)
    frozen: dict[nn.Module, Refusal] = field(default_factory=dict)
    given: bool = False
    by_name: Names | None = None
    program: ExportedProgram | None = None
    lifted: Mapping[str, Tensor] = field(default_factory=dict)
    placeholders: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Part | None:
        """The part that is the whole model, with nodes for what was left whole in it."""
        return next((p for p in self.parts if p.module is self.model and p.module not in self.opaque), None)

    @functools.cached_property
    def paths(self) -> dict[nn.Module, str]:
        """The first path of every module."""
        return paths_below(self.model)

    @functools.cached_property
    def holders(self) -> dict[int, list[str]]:
        """The paths of the modules in which each parameter is registered, by its id."""
        result: dict[int, list[str]] = {}
        for module, path in self.paths.items():
            for parameter in module._parameters.values():
                if parameter is not None:
                    result.setdefault(id(parameter), []).append(path)
        return result

    @property
    def constants(self) -> list[Tensor]:
        """The tensors that the graphs read by name."""
        graphs = [part.graph_module for part in self.parts]
        found = [fetch(g, str(node.target)) for g in graphs for node in g.graph.nodes if node.op == "get_attr"]
        return [tensor for tensor in found if isinstance(tensor, Tensor)]

    def copied(self) -> Capture:
        """Return the same with graphs of its own, which can be changed."""
        return replace(self, parts=[replace(p, graph_module=copy_of(p.graph_module)) for p in self.parts])

    @functools.cached_property
    def names(self) -> Names:
        """What untraced code may use by itself."""
        opaque = {**self.as_is, **self.opaque}
        traced = {part.module for part in self.parts} - opaque.keys()
        return Names(self.paths, opaque, traced=traced, given=self.given)

    @property
    def held(self) -> set[nn.Module]:
        """Modules that code which was traced may look into, or calls in another way than with a value alone."""
        return self._kept_code[0].union(*(part.by_keyword for part in self.parts))

    @property
    def sized(self) -> set[nn.Module]:
        """Those of which it may read the sizes, the weights or the like: it names such attributes of others."""
        held, named = self._kept_code
        return set() if _NOTED.isdisjoint(named) else held

    @functools.cached_property
    def _kept_code(self) -> tuple[set[nn.Module], set[str]]:
        """What code that was traced may hold, and the names of the attributes that it reads of others."""
        parts = [part.module for part in self.parts if not part.recorded]
        traced = {module for part in parts for module in paths_below(part)} - self.opaque.keys() - self.as_is.keys()
        forwards = {kind: forwards_of(kind) for kind in map(type, traced)}
        entries = [entry for found in forwards.values() for entry in found]
        code = Code(Members(self.paths), entries, helpers=True)
        return code.reached([module for module in traced if forwards[type(module)]]).held, code.others

    @property
    def whole(self) -> bool:
        """Whether one graph holds the whole model, but for modules with hooks."""
        return self.root is not None and not self.opaque

    def opaque_parent(self, path: str) -> tuple[str, str] | None:
        """Return the nearest module around a path of which the forward was not captured, and why not."""
        captured_paths = {part.path for part in self.parts}
        opaque = {self.paths[module]: why for module, why in self.opaque.items()}
        inside = path
        while inside not in opaque:
            if inside in captured_paths or not inside:
                return None
            inside = inside.rpartition(".")[0]
        return inside, opaque[inside]
