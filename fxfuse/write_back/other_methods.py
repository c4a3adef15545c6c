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
from fxfuse.modules.lookup import CONTAINERS
from fxfuse.operators.roles import Linear
from fxfuse.report.reasons import Reason, Refusal
from fxfuse.source.adjacent_layers import always_follows
from fxfuse.source.hidden_access import calls_listed
from fxfuse.source.reach import Reach, methods_beside_forward, parsed_methods, reach
from fxfuse.source.syntax import nodes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


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


class OtherMethods:
    """The methods beside the forwards of a model, and what each of them keeps from being folded."""

    def __init__(self, model: nn.Module, paths: Mapping[nn.Module, str]) -> None:
        """Look at nothing yet.

        Args:
            model: the model.
            paths: where its modules stand.
        """
        self.model = model
        self.paths = paths

    @functools.cached_property
    def _methods(self) -> list[tuple[nn.Module, set[nn.Module], list[tuple[_Method, bool]]]]:
        """Each module that has such methods, the modules inside, and the methods with whether the forward uses them."""
        found = []
        for module in self.model.modules():
            methods = [(_Method(module, name), used) for name, used in _other_methods(module).items()]
            if methods:
                found.append((module, set(module.modules()), methods))
        return found

    def require_same(self, fold: set[nn.Module], *, downstream: bool) -> None:
        """Refuse a fold of which a method calls only a part.

        Args:
            fold: the modules that it changes; one alone does the same for everybody who calls it.
            downstream: whether values between them are others from now on.

        Raises:
            Refusal: with the method that keeps them.
        """
        for _, inside, methods in self._methods if len(fold) > 1 else ():
            for method, used in methods if fold <= inside else ():
                if (used and not downstream) or _is_for_the_fused(method.name):
                    continue
                if _configures(method.name) and not set(method.found.called) - method.found.escaped:
                    continue  # it calls no layer: what initialises or loads a model is not meant for a fused one
                split = fold if method.calls_what_it_finds(fold) else _split(method.found, fold)
                if split and not _joined(method.module, method.name, fold):
                    alone = ", ".join(sorted(self.paths[m] for m in split))
                    raise Refusal(Reason.REACHED_INTO, value=alone, users=self._told(method))

    def require_unread(self, owner: nn.Module, names: set[str], gone: set[str]) -> None:
        """Refuse to change tensors that a method reads.

        Args:
            owner: the module that holds them.
            names: what they are called there.
            gone: those that it will not have any more, of which a method cannot ask the shape either.

        Raises:
            Refusal: with the method that reads one.
        """
        for module, inside, methods in self._methods if names else ():
            for method, _ in methods if owner in inside else ():
                found = Reach() if _configures(method.name) else method.found
                own = module is owner and (found.own & names or found.own_shapes & gone)
                if own or owner in found.read:
                    path = self.paths[owner] or type(owner).__name__
                    raise Refusal(Reason.REACHED_INTO, value=path, users=self._told(method))

    def _told(self, method: _Method) -> str:
        return f"{self.paths[method.module] or type(method.module).__name__}.{method.name}"


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
