"""What untraced code forbids, going by the names that it mentions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from fxfuse.capture.members import Members, forwards_of
from fxfuse.capture.untraced_code import Code, Reached
from fxfuse.modules.code import mentions
from fxfuse.modules.lookup import ancestors, splitting
from fxfuse.report.reasons import PASS_INPUTS, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# Methods of modules that change what is in them: switch norms, exchange modules, or write into tensors.
_CHANGING = frozenset("train eval add_module register_module set_submodule load_state_dict _apply".split())


class Names:
    """What the untraced code of a model may use by itself.

    A fold holds if all that may use one of its modules uses, at the least, a module that holds all of them: that one
    gives what it gave.  So does a module that was traced as a whole, since its graph is fused with the others.
    """

    def __init__(
        self,
        paths: Mapping[nn.Module, str],
        opaque: Mapping[nn.Module, str],
        *,
        traced: Iterable[nn.Module] = (),
        given: bool = False,
    ) -> None:
        """Look at the code of the modules that were not traced.

        Args:
            paths: the modules of the model, with their paths.
            opaque: those of which the own forward was not traced, and why.
            traced: those of which a graph says what a call does, also where a fold changes a part of it.
            given: whether there are example inputs, so that nobody is told to pass some.
        """
        self._advice = "" if given else PASS_INPUTS
        self._paths = paths
        self._traced = frozenset(traced)
        self._opaque = opaque
        self._members = Members(paths) if opaque else Members(())
        self._above = ancestors(paths) if opaque else {}
        outermost = [m for m in opaque if self._above[m].isdisjoint(opaque.keys() - {m})]
        self._codes = [self._code_of(module) for module in outermost]

    def _code_of(self, outermost: nn.Module) -> tuple[nn.Module, Code, Reached]:
        """Return the untraced code in a module, with what it may come to."""
        inside = [module for module in self._opaque if outermost in self._above[module]]
        entries = [entry for module in inside for entry in forwards_of(type(module), above=False)]
        entries += [(module.__dict__["forward"], None) for module in inside if "forward" in module.__dict__]
        code = Code(self._members, entries)
        changes = not code.names.isdisjoint(_CHANGING) or not code.others.isdisjoint(("__setattr__", "__delattr__"))
        code.opens = code.opens or changes
        return outermost, code, code.reached(inside)

    def refusal(self, modules: Collection[nn.Module]) -> Refusal | None:
        """Return why untraced code forbids a fold, None if it does not.

        Args:
            modules: those that the fold changes.
        """
        split = splitting(modules, self._above) if self._codes and modules else frozenset()
        for outermost, code, found in self._codes:
            used = not found.touched.isdisjoint(split - self._traced) or not found.opened.isdisjoint(modules)
            if used or any(_reads(code, found.touched, module) for module in modules):
                return self._refusal_of(outermost)
        return None

    def sets(self, module: nn.Module | None) -> bool:
        """Whether untraced code may set an attribute that a layer has: its padding, eps or mode."""
        if module is None:
            return False
        return any(not code.stored(module).isdisjoint(vars(module)) for _, code, _ in self._codes)

    def touches(self, module: nn.Module) -> bool:
        """Whether untraced code may come to a module by itself."""
        return any(module in found.touched for _, _, found in self._codes)

    def calls_one_of(self, modules: Collection[nn.Module]) -> bool:
        """Whether untraced code calls a layer by its name."""
        names = {module: self._paths[module].rpartition(".")[2] for module in modules if not module._modules}
        return any(m in found.touched and n in code.calls for _, code, found in self._codes for m, n in names.items())

    def require(self, modules: Collection[nn.Module]) -> None:
        """Refuse a fold that untraced code forbids; see ``refusal``."""
        refusal = self.refusal(modules)
        if refusal is not None:
            raise refusal

    def read(self) -> dict[nn.Module, Refusal]:
        """Return the modules of which untraced code may read the tensors by themselves, each with a refusal."""
        found: dict[nn.Module, Refusal] = {}
        for outermost, code, reached in self._codes:
            named = [mentions(function.__code__) for function in code.functions]
            for module in reached.touched:
                name = self._paths.get(module, "").rpartition(".")[2]
                tensors = (*module._parameters, *module._buffers)
                # As in ``self.conv.weight``: one function mentions the layer and the tensor.
                if any(name in f.names and not (f.names - f.asked).isdisjoint(tensors) for f in named):
                    found[module] = self._refusal_of(outermost)
        return found

    def _refusal_of(self, outermost: nn.Module) -> Refusal:
        value = self._paths[outermost] or type(outermost).__name__
        return Refusal(Reason.OPAQUE, value=value, detail=self._opaque[outermost], advice=self._advice)

    def switched(self, modules: Iterable[nn.Module]) -> set[nn.Module]:
        """Return those modules of which untraced code may set what their code reads: an attribute, or in a variable."""
        found, codes = set[nn.Module](), dict[type, Code]()
        for module in modules:
            around = [code for outermost, code, _ in self._codes if outermost in self._above[module]]
            stored = {name for code in around for name in code.stored(module)}
            variables = {each for code in around for each in code.changeable}
            kind = type(module)
            if not (stored or variables) or not forwards_of(kind):
                continue
            if kind not in codes:
                codes[kind] = Code(self._members, forwards_of(kind))
            own = codes[kind]
            read = {"__class__"}.union(*(mentions(function.__code__).names for function in own.functions))
            renames = bool(stored) and kind.__setattr__ is not nn.Module.__setattr__
            if renames or not stored.isdisjoint(read) or not variables.isdisjoint(own.changeable):
                found.add(module)
        return found


def _reads(code: Code, touched: Collection[nn.Module], module: nn.Module) -> bool:
    """Whether code that may come to a module mentions one of its tensors, for more than its shape or dtype."""
    return module in touched and not code.values.isdisjoint((*module._parameters, *module._buffers))
