"""What hooks on blocks may do to the layers inside, and to what forwards read; found in their code.

Tracing does not run hooks.  So a hook that may come to a layer keeps it as it is, and a forward that may read what a
hook writes is not traced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxfuse.graph.registry import operator_of
from fxfuse.modules.lookup import is_hooked
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.source.hooks import HookReader
from fxfuse.source.objects import all_in, captured, functions_of, members, names_in_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn


@dataclass
class HookEffects:
    """What the hooks of a model may do.

    Attributes:
        paths: the modules of the model.
        inside: modules of which the layers may be used, or changed.
        known: modules that code knows by themselves, of which no graph can take the place.
        written: names of attributes and variables that are set.
        shared: objects that may be changed.
    """

    paths: Mapping[nn.Module, str]
    inside: dict[nn.Module, nn.Module] = field(default_factory=dict)
    known: set[nn.Module] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    shared: list[Any] = field(default_factory=list)

    @staticmethod
    def of(paths: Mapping[nn.Module, str]) -> HookEffects:
        """Read the hooks of all modules of a model that run in a forward pass."""
        effects = HookEffects(paths)
        for module in [module for module in paths if is_hooked(module)]:
            for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
                effects.read(module, hook)
        return effects

    def read(self, module: nn.Module, hook: Any) -> None:
        """Note what a hook of a module may do."""
        try:
            HookReader(self, module).read(hook)
        except Exception:  # noqa: BLE001 - what cannot be read, for whatever reason, may do anything
            self.look(next(iter(self.paths)), module)

    def look(self, module: nn.Module, hooked: nn.Module) -> None:
        """Note that a hook may come to the layers in a module."""
        if operator_of(module) is None or module is not hooked:  # a layer with a hook stays anyway
            self.inside.setdefault(module, hooked)

    def kept(self) -> dict[nn.Module, Refusal]:
        """Return the modules that must stay as they are."""
        refusals = {m: Refusal(Reason.HOOKED, value=self.paths[m] or type(m).__name__) for m in self.inside.values()}
        return {inner: refusals[hooked] for module, hooked in self.inside.items() for inner in module.modules()}

    def untraceable(self) -> set[nn.Module]:
        """Return the modules of which a graph would not do what they do."""
        found = {*self.inside, *self.known}
        if self.written or self.shared:
            classes = {cls: self._reads(cls) for cls in {type(module) for module in self.paths}}
            found |= {module for module in self.paths if classes[type(module)] or self._shares(members(module))}
        return {module for module in found if operator_of(module) is None}

    def _reads(self, cls: type) -> bool:
        """Whether functions of a class mention a name that a hook sets, or know an object that it may change."""
        known = (value for function in functions_of(cls) for value in captured(function).values())
        return not self.written.isdisjoint(names_in_class(cls)) or self._shares(known)

    def _shares(self, known: Iterable[Any]) -> bool:
        wanted = {id(value) for value in self.shared}
        return any(id(inner) in wanted for value in known for inner in all_in(value))
