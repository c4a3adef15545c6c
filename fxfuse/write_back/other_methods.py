"""Where the user's class is kept, its other methods are too: a fold must not change what they give.

The forward is proven by its graph.  A method that the forward does not use (``features`` beside ``forward``) still
calls the same modules.  If it calls the convolution without the norm, the fold would change its result.

A public method that the forward uses (``forward_features``) is there to be called as well.  Where a norm goes into
what follows, its result would lack the norm, so that is refused too.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxfuse.graph.registry import operator_of
from fxfuse.modules.lookup import CONTAINERS, look_up
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.source.adjacent_layers import always_follows
from fxfuse.source.hidden_access import calls_listed
from fxfuse.source.reach import Reach, methods_beside_forward, parsed_methods, reach
from fxfuse.source.syntax import nodes_of
from fxfuse.write_back.replacements import folded_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from fxfuse.capture.capture import Capture, Part
    from fxfuse.edit.editor import Editor


# How methods begin, after underscores, that initialise, load or configure a model.
_CONFIGURES = tuple(
    "init post_init reset load set_ fuse reparam switch prune zero_init train extra_ no_ get_ group_".split()
)


_DEEP = frozenset("modules named_modules get_submodule".split())


@dataclass(frozen=True, eq=False)
class _Method:
    """A method beside the forward, which is read when somebody asks, and only once."""

    module: nn.Module
    name: str

    @functools.cached_property
    def found(self) -> Reach:
        """How it reaches the modules below."""
        return reach(self.module, (self.name,))

    @functools.cached_property
    def _trees(self) -> list[ast.AST]:
        # Where it cannot be read, nobody can say more than ``found``.
        return [source.tree for source in parsed_methods(self.module, [self.name]) or ()]

    @functools.cached_property
    def _calls_listed(self) -> bool:
        containers = {name for name, child in self.module._modules.items() if isinstance(child, CONTAINERS)}
        return any(calls_listed(tree, containers) for tree in self._trees)

    @functools.cached_property
    def _is_deep(self) -> bool:
        nodes = (node for tree in self._trees for node in nodes_of(tree))
        return any(isinstance(node, ast.Attribute) and node.attr in _DEEP for node in nodes)

    def calls_what_it_finds(self, fold: set[nn.Module]) -> bool:
        """Whether it comes to the modules of a fold by a list of layers, and calls what it finds there."""
        escaped = self.found.escaped
        listed = {child for m in escaped if isinstance(m, CONTAINERS) for child in m.children()} | escaped
        if not fold & listed and self.module not in self.found.kept:
            return False
        return self._calls_listed and (bool(fold & listed) or self._is_deep or not self._within(fold))

    def _within(self, fold: set[nn.Module]) -> bool:
        """Whether one child holds all modules of a fold."""
        return any(fold <= set(child.modules()) for child in self.module.children())


def changed_elsewhere(captured: Capture, edits: Iterable[tuple[Part, Editor]]) -> dict[nn.Module, Refusal]:
    """Return the modules that must stay, since another method calls only a part of what was folded."""
    edits = list(edits)
    back, onwards = (_several(folded_modules(edits, downstream=way)) for way in (False, True))
    result: dict[nn.Module, Refusal] = {}
    paths = captured.paths
    for module in captured.model.modules() if back or onwards else ():
        methods = _other_methods(module)
        inside = set(module.modules()) if methods else set()
        for method, used in methods.items():
            if _is_for_the_fused(method):
                continue
            read = _Method(module, method)
            for fold in (fold for fold in (onwards if used else back + onwards) if fold <= inside):
                if _configures(method) and not set(read.found.called) - read.found.escaped:
                    continue  # it calls no layer: what initialises or loads a model is not meant for a fused one
                split = fold if read.calls_what_it_finds(fold) else _split(read.found, fold)
                if split and not _joined(module, method, fold):
                    name = ".".join(filter(None, [paths[module] or type(module).__name__, method]))
                    alone = ", ".join(sorted(paths[m] for m in split))
                    refusal = Refusal(Reason.REACHED_INTO, value=alone, users=name)
                    result = {**dict.fromkeys(fold, refusal), **result}
    return result


def read_elsewhere(
    model: nn.Module, replaced: Mapping[nn.Module, nn.Module], paths: Mapping[nn.Module, str]
) -> dict[nn.Module, Refusal]:
    """Return the modules that must stay, since another method reads a tensor of theirs that changed.

    Layers are read with the norms that went into them: ``changed_elsewhere`` looks after these.

    Args:
        model: the model.
        replaced: modules of the user's, each with what takes its place.
        paths: where they stand in the model.
    """
    changed = {m: names for m, new in replaced.items() if operator_of(m) is None and (names := _changed(m, new))}
    result: dict[nn.Module, Refusal] = {}
    for module in model.modules() if changed else ():
        for method in _other_methods(module):
            found = Reach() if _configures(method) else reach(module, (method,))
            read = {m for m in found.read if m in changed}
            gone = {name for name in found.own_shapes if look_up(replaced.get(module, module), name) is None}
            if (found.own | gone) & changed.get(module, set()):
                read.add(module)
            name = f"{paths[module] or type(module).__name__}.{method}"
            for m in read:
                result[m] = Refusal(Reason.REACHED_INTO, value=paths[m] or type(m).__name__, users=name)
    return result


def _changed(module: nn.Module, new: nn.Module) -> set[str]:
    """Return the names of the tensors of a module that are others in the new one."""
    names = {*module._parameters, *module._buffers, *look_up(module, "parametrizations", default={})}
    return {name for name in names if look_up(new, name) is not look_up(module, name)}


def _several(folds: list[set[nn.Module]]) -> list[set[nn.Module]]:
    """Return the folds that concern several modules: one alone does the same for everybody who calls it."""
    return [fold for fold in folds if len(fold) > 1]


def _other_methods(module: nn.Module) -> dict[str, bool]:
    """Return the methods that somebody may call besides ``forward``, and whether that uses them."""
    try:
        methods = methods_beside_forward(module)
    except (OSError, TypeError, SyntaxError, AttributeError):
        return {}  # without source nobody can say; the class was not written in a file
    private = {name for name, used in methods.items() if used and name.startswith("_")}
    return {name: used for name, used in methods.items() if name not in private and not name.startswith("__")}


def _is_for_the_fused(method: str) -> bool:
    """Whether a method is named as the forward of a layer into which its norm has gone: YOLO's ``forward_fuse``."""
    return method.startswith(("forward_fuse", "fuseforward", "fuse_forward", "forward_deploy"))


def _configures(method: str) -> bool:
    return method.startswith("__") or method.lstrip("_").startswith(_CONFIGURES)


def _split(found: Reach, fold: set[nn.Module]) -> set[nn.Module]:
    """Return the modules of a fold that a method uses by themselves, and not within a module that holds them all."""
    # A module that is only handed on counts for itself, not for what is below: most such methods configure a model.
    called = set(found.called) - found.escaped
    together = [module for module in called if fold <= set(module.modules())]
    alone = {m for module in called if module not in together for m in module.modules()}
    escaped = found.escaped & fold
    alone |= (escaped if escaped != fold else set()) | (set() if together else found.read)
    for module, methods in found.entered.items():
        names = [name for name in methods if not _configures(name)]
        inside = set(module.modules())
        alone |= _split(reach(module, names), fold) if fold <= inside else inside if names else set()
    return fold & alone


def _joined(module: nn.Module, method: str, fold: set[nn.Module]) -> bool:
    """Whether a method calls the two modules of a fold one after the other, always."""
    if len(fold) != 2:
        return False
    linear = [m for m in fold if (row := operator_of(m)) is not None and issubclass(row.view, Linear)]
    others = list(fold - set(linear))
    return len(linear) == len(others) == 1 and always_follows(module, linear[0], others[0], method)
