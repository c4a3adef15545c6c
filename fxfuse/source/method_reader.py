"""One method of the user's, read for what it does with the modules below its own."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Protocol

from fxfuse.modules.lookup import CONTAINERS
from fxfuse.source.decorators import sources_of
from fxfuse.source.module_names import ModuleNames, has_own_loop, is_unread
from fxfuse.source.syntax import (
    Source,
    called_function,
    gives,
    global_of,
    is_looked_up,
    is_name,
    is_super,
    is_text,
    last_name,
    named_method,
    nodes_of,
    parents_of,
    runs_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

# Methods of torch's that open a module for whoever calls them.
LISTING = frozenset("children named_children modules named_modules get_submodule apply _modules __dict__".split())
_TENSORS = frozenset("parameters named_parameters buffers named_buffers state_dict get_parameter get_buffer".split())
_SWITCHES = frozenset("train eval to half float double bfloat16 load_state_dict requires_grad_ __setattr__".split())
_ITEMS = frozenset("children named_children items values keys".split())
_SHAPES = frozenset("dtype device shape ndim size dim numel requires_grad".split())
_HARMLESS = frozenset("hasattr type super id len repr range print".split())
_BINDING = frozenset("enumerate zip reversed list tuple iter".split())
_CALLS_BACK = frozenset("checkpoint checkpoint_seq checkpoint_sequential".split())


class Notes(Protocol):
    """Who wants to know what is found.

    Attributes:
        module: the module of which the methods are read.
        helpers: functions that were read, each with the argument that is a module.
        lost: modules handed to code that is not read.
    """

    module: nn.Module
    helpers: set[tuple[object, str, nn.Module]]
    lost: set[nn.Module]

    def call(self, module: nn.Module, call: ast.Call | None) -> None:
        """Note a call, with unknown arguments if there is no expression for it."""

    def escape(self, module: nn.Module) -> None:
        """Note that a module is handed to code that is not read."""

    def attribute(self, module: nn.Module, name: str) -> None:
        """Note that an attribute of a module below is read."""

    def own(self, name: str, *, shape: bool) -> None:
        """Note that an attribute of the module itself is read, perhaps only its ``shape`` or the like."""

    def tap(self, module: nn.Module) -> None:
        """Note that a module is used by itself, as a part of a container."""

    def normalises(self, module: nn.Module) -> bool:
        """Whether a fold could take the module away."""


class MethodReader:
    """The source of one method."""

    def __init__(self, notes: Notes, source: Source, given: Mapping[str, nn.Module]) -> None:
        """Read ``source`` for ``notes``; ``given`` are the parameters that are modules."""
        self.notes = notes
        self.source = source
        self.tree = source.tree
        self.parents = parents_of(source.tree)
        self.names = ModuleNames(source.tree, given)
        self.used: set[str] = set()
        self.named: set[tuple[type, str]] = set()  # methods that are called by the name of a class

    def read(self) -> set[str]:
        """Note everything, and return the names of the other methods that are used."""
        for node in nodes_of(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                for module in list(self.names.bound.get(node.id, ())):
                    self._follow(node, module)
            if isinstance(node, ast.Call) and is_super(node):
                parent = self.parents.get(node)
                named = named_method(self.source, parent, type(self.notes.module))
                if named is not None:
                    self.named.add(named)
                elif isinstance(parent, ast.Attribute) and not node.args:
                    self.used.add("super()." + parent.attr)
                else:
                    self.notes.escape(self.notes.module)
        return self.used

    def _follow(self, node: ast.expr, module: nn.Module) -> None:
        """Follow the expression that starts with a module as far as it leads to modules, and note its use."""
        parent = self.parents.get(node)
        if isinstance(parent, (ast.Attribute, ast.Subscript)) and parent.value is node:
            inner = list(self.names.inner(module, parent))
            for child in inner:
                self._follow(parent, child)
            if not inner:
                self._leave(parent, module)
        elif isinstance(parent, ast.expr) and gives(parent, node):
            self._follow(parent, module)
        elif isinstance(parent, ast.Call) and parent.func is node:
            self.notes.call(module, parent)
        elif isinstance(parent, ast.Call):
            self._passed(node, module, parent)
        elif not self._is_bound(node, parent, module):
            self.notes.escape(module)

    def _passed(self, node: ast.expr, module: nn.Module, call: ast.Call) -> None:
        """Note that a module is passed to a function."""
        if is_name(call.func, "getattr") and node is call.args[0]:
            self._fetched(module, call)
        elif is_name(call.func, "isinstance") and self.notes.normalises(module):
            self.notes.attribute(module, "__class__")
        elif is_name(call.func, "isinstance", *_HARMLESS) or self._is_bound(node, call, module):
            return
        elif self._calls_back(call) and module is not self.notes.module:
            self.notes.call(module, None)
        elif module is self.notes.module and (named := named_method(self.source, call.func, type(module))):
            self.named.add(named)  # Base.forward(self, x)
        elif not is_looked_up(self.source, call) and not self._helped(node, module, call):
            self.notes.escape(module)
            if is_name(call.func, *_BINDING) and isinstance(module, CONTAINERS):
                self._open(module)

    def _calls_back(self, call: ast.Call) -> bool:
        """Whether a call is one of torch's or timm's that call what they get, not of a function beside this one."""
        beside = getattr(global_of(self.source, call.func), "__module__", "") == self.source.function.__module__
        return last_name(call.func) in _CALLS_BACK and not beside

    def _helped(self, node: ast.expr, module: nn.Module, call: ast.Call) -> bool:
        """Read what a plain function of the user's does with a module, and return whether it could be read."""
        function, parameter = called_function(self.source, call, node)
        if function is None or self.notes.module in self.notes.lost:  # the latter: nothing can be worse
            return False
        if (function, parameter, module) in self.notes.helpers:
            return True
        try:
            (source,) = sources_of(function)
        except (OSError, TypeError, SyntaxError, ValueError):  # the last one: there is something around it
            return False
        if runs_text(source.tree):
            return False
        self.notes.helpers.add((function, parameter, module))
        reader = MethodReader(self.notes, source, {parameter: module})
        self.used |= reader.read()
        self.named |= reader.named
        return True

    def _fetched(self, module: nn.Module, call: ast.Call) -> None:
        """Note ``getattr(module, name)``: any child, where the name is computed."""
        children = list(self.names.fetched(module, call))
        for child in children:
            self._follow(call, child)
        if not children and is_text(call.args[1]):
            self._named(module, call.args[1].value, call)  # type: ignore[attr-defined] # a text constant
        elif not is_text(call.args[1]) and not isinstance(self.parents.get(call), ast.Call):
            self.notes.escape(module)

    def _is_bound(self, node: ast.expr, parent: ast.AST | None, module: nn.Module) -> bool:
        """Whether the module only gets a local name here, or is asked for its truth; names are followed themselves."""
        start = node
        while _is_display(parent) or (isinstance(parent, ast.Subscript) and isinstance(parent.slice, ast.Slice)):
            node, parent = parent, self.parents.get(parent)  # type: ignore[assignment, arg-type] # an expression
        if isinstance(parent, (ast.For, ast.comprehension)):
            return parent.iter is node and not has_own_loop(module)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)):
            side_by_side = isinstance(node, ast.Tuple) and not any(isinstance(n, ast.Starred) for n in node.elts)
            followed = node is start or (side_by_side and self.names.unpacks(parent))  # no list of layers is
            return parent.value is node and followed and self.names.can_bind(parent)
        tested = isinstance(parent, (ast.If, ast.While, ast.IfExp)) and parent.test is node
        return tested or isinstance(parent, (ast.Compare, ast.UnaryOp))

    def _leave(self, node: ast.Attribute | ast.Subscript, module: nn.Module) -> None:
        """Note an attribute or element that is not a module."""
        if isinstance(node, ast.Attribute):
            self._named(module, node.attr, node)
        elif isinstance(node.slice, ast.Slice) and isinstance(module, CONTAINERS):
            parent = self.parents.get(node)
            if not self._is_bound(node, parent, module) or isinstance(parent, (ast.Assign, ast.AnnAssign)):
                self._open(module)
        elif hasattr(type(module), "__getitem__"):
            self.notes.escape(module)

    def _open(self, container: nn.Module) -> None:
        """Note that a list of some layers is made, each of which may be used by itself."""
        for child in container.children():
            self.notes.escape(child)
            self.notes.tap(child)

    def _named(self, module: nn.Module, name: str, node: ast.expr) -> None:
        """Note an attribute that is not a child."""
        if self._changes(module, name, node):
            self.notes.escape(module)  # it is another module from here on
        held = list(self.names.held(module, name))
        opened = name in LISTING or (isinstance(module, CONTAINERS) and name in _ITEMS)
        if held or opened:
            # A loop binds names to what it visits, and these are followed; any other use could reach anything.
            visited = self._is_looped(node, module) and (held or name in _ITEMS)
            for other in () if visited else (held or [module]):
                self.notes.escape(other)
        elif name in _TENSORS:
            if not self._asks_for_dtype(node):
                self.notes.escape(module)
        elif module is self.notes.module:
            self.used.add(name)
            self.notes.own(name, shape=self._asks_shape(node))
        elif self.notes.normalises(module) or not self._asks_shape(node):
            self.notes.attribute(module, name)

    def _changes(self, module: nn.Module, name: str, node: ast.expr) -> bool:
        """Whether an attribute is set, switches what a module does, or is code that is not read."""
        if module is self.notes.module:
            return name in _SWITCHES or is_unread(module, name)
        return name in _SWITCHES or isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del))

    def _is_looped(self, node: ast.expr, module: nn.Module) -> bool:
        parent = self.parents.get(node)
        if isinstance(parent, ast.Call) and parent.func is node:
            return self._is_bound(parent, self.parents.get(parent), module)
        return self._is_bound(node, parent, module)

    def _asks_shape(self, node: ast.expr) -> bool:
        return getattr(self.parents.get(node), "attr", None) in _SHAPES

    def _asks_for_dtype(self, node: ast.expr) -> bool:
        """Whether this is ``next(module.parameters()).dtype`` or the like."""
        call = self.parents.get(node)
        outer = self.parents.get(call) if call is not None else None
        return isinstance(outer, ast.Call) and is_name(outer.func, "next") and self._asks_shape(outer)


def _is_display(node: ast.AST | None) -> bool:
    return isinstance(node, (ast.Tuple, ast.List)) or (isinstance(node, ast.Call) and is_name(node.func, *_BINDING))
