"""Which layers always follow one another in a forward that cannot be traced, read from its source.

The source has to say that the result of the first layer goes to the second, wherever the first is called, and to
nothing else.  What else the forward does, and where it branches, does not matter then.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from fxfuse.graph.registry import operator_of
from fxfuse.source.hidden_access import hides_ways
from fxfuse.source.reach import parsed_methods
from fxfuse.source.syntax import binds, called_function, is_name, nodes_of, parents_of, parse, runs_text
from fxfuse.source.texts import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fxfuse.source.syntax import Source

_LEAVES_BLOCK = (ast.Return, ast.Raise, ast.Break, ast.Continue)


def always_follows(owner: nn.Module, first: nn.Module, second: nn.Module, method: str = "") -> bool:
    """Whether ``second`` is called on the result of ``first``, always, and nothing else reads that result.

    Args:
        owner: the module in whose methods both are called.
        first: a child of it.
        second: a child of it.
        method: another method to read than the forward.
    """
    calls = _Calls.of(owner, [method or "forward"])
    return calls is not None and calls.follows(first, second)


def chains(owner: nn.Module, methods: Iterable[str]) -> list[list[str]]:
    """Return the names of layers that always follow one another in some methods of a module, in their order."""
    names = {child: name for name, child in owner.named_children() if operator_of(child) is not None}
    calls = _Calls.of(owner, methods) if len(names) > 1 else None
    if calls is None:
        return []
    after = {one: two for two in names for one in names if one is not two and calls.follows(one, two)}
    found = []
    for start in after.keys() - set(after.values()):
        chain = [start]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        found.append([names[child] for child in chain])
    return sorted(found)


class _Calls:
    """Where the methods of a module call its children by name; any other mention of a child counts as a call too."""

    def __init__(self, owner: nn.Module, sources: list[Source]) -> None:
        self.owner = owner
        self.stored = {n.attr for s in sources for n in nodes_of(s.tree) if isinstance(n, ast.Attribute) and _is_set(n)}
        self.sites: dict[nn.Module, list[tuple[Source, ast.Call]]] = {}
        for source in sources:
            for child, call in (*self._calls(source), *self._fetched(source)):
                self.sites.setdefault(child, []).append((source, call))

    @staticmethod
    def of(owner: nn.Module, methods: Iterable[str]) -> _Calls | None:
        """Read methods and all that they use; None if calls may be hidden."""
        sources = parsed_methods(owner, methods)
        return None if sources is None or hides_ways(owner, sources) else _Calls(owner, sources)

    def follows(self, first: nn.Module, second: nn.Module) -> bool:
        """Whether one child is called on the result of another, always, and nothing else reads that result."""
        made, used = self.sites.get(first, []), self.sites.get(second, [])
        if len(made) != 1 or len(used) != 1 or made[0][0] is not used[0][0]:
            return False
        (source, one), (_, two) = made[0], used[0]
        if len(two.args) != 1 or two.keywords:
            return False
        return two.args[0] is one or self._through_a_name(source, one, two)

    def _calls(self, source: Source) -> Iterator[tuple[nn.Module, ast.Call]]:
        parents = parents_of(source.tree)
        tests = (node.test for node in nodes_of(source.tree) if isinstance(node, ast.If))
        skipped = {node for test in tests if self.decided(source, test) is not None for node in ast.walk(test)}
        for node in nodes_of(source.tree):
            if isinstance(node, ast.Attribute) and is_name(node.value, source.own) and node not in skipped:
                child, parent = self.owner._modules.get(node.attr), parents[node]
                if child is None:
                    continue
                if isinstance(parent, ast.Call) and parent.func is node:
                    yield child, parent
                elif not (isinstance(parent, ast.Call) and _reads_settings(source, parent, node, child)):
                    yield child, ast.Call(node, [], [])

    def _fetched(self, source: Source) -> Iterator[tuple[nn.Module, ast.Call]]:
        """Yield the children that ``getattr`` may give, with a call that says nothing."""
        for node in nodes_of(source.tree):
            if isinstance(node, ast.Call) and is_name(node.func, "getattr") and is_name(node.args[0], source.own):
                children = map(self.owner._modules.get, texts_of(source.tree, node.args[1]) or ())
                yield from ((child, ast.Call(node, [], [])) for child in children if child is not None)

    def decided(self, source: Source, test: ast.expr) -> bool | None:
        """Return what a condition is for this module, whatever the input; None where that cannot be said."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.decided(source, test.operand)
            return None if inner is None else not inner
        compared = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Is, ast.IsNot))
        asked = test.left if isinstance(test, ast.Compare) and compared and _is_none(test.comparators[0]) else test
        if not isinstance(asked, ast.Attribute) or not is_name(asked.value, source.own) or asked.attr in self.stored:
            return None
        if asked.attr not in self.owner._modules:
            return None
        child = self.owner._modules[asked.attr]
        if child is not None and any(hasattr(type(child), name) for name in ("__bool__", "__len__")):
            return None
        there = child is not None
        return not there if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is) else there

    def _through_a_name(self, source: Source, made: ast.Call, used: ast.Call) -> bool:
        """``y = first(x)`` and later in the same block ``... second(y)``, with no other use of that ``y``."""
        for block in self._blocks(source) if isinstance(used.args[0], ast.Name) else ():
            start = next((n for n, s in enumerate(block) if isinstance(s, ast.Assign) and s.value is made), None)
            end = next((n for n, s in enumerate(block) if used in ast.walk(s)), None)
            if start is not None and end is not None and end > start:
                return _is_handed_on(source, block[start : end + 1], used)
        return False

    def _blocks(self, source: Source) -> Iterator[list[ast.stmt]]:
        for node in nodes_of(source.tree):
            for field in ("body", "orelse", "finalbody"):
                block = getattr(node, field, None)
                if isinstance(block, list):
                    yield self._flat(source, block)

    def _flat(self, source: Source, block: list[ast.stmt]) -> list[ast.stmt]:
        """Return a block with the arms of conditions of which the outcome is known in their places."""
        result: list[ast.stmt] = []
        for statement in block:
            outcome = self.decided(source, statement.test) if isinstance(statement, ast.If) else None
            if isinstance(statement, ast.If) and outcome is not None:
                result += self._flat(source, statement.body if outcome else statement.orelse)
            else:
                result.append(statement)
        return result


@functools.cache
def _settings_read(function: object, parameter: str) -> frozenset[str] | None:
    """Return the attributes of a parameter that a function reads, None if it does anything else with it."""
    try:
        tree, _ = parse(function)
    except (OSError, TypeError, SyntaxError):
        return None
    if runs_text(tree):
        return None
    attributes = [node for node in nodes_of(tree) if isinstance(node, ast.Attribute) and not _is_set(node)]
    read = [node for node in attributes if is_name(node.value, parameter)]
    mentioned = sum(is_name(n, parameter) for n in nodes_of(tree))
    return frozenset(n.attr for n in read) if len(read) == mentioned else None


def _reads_settings(source: Source, call: ast.Call, argument: ast.expr, child: nn.Module) -> bool:
    """Whether a child is handed to a function that reads nothing of it but settings, such as its stride."""
    function, parameter = called_function(source, call, argument)
    read = None if function is None else _settings_read(function, parameter)
    settings = {name for name, value in child.__dict__.items() if not isinstance(value, (nn.Module, Tensor))}
    return read is not None and all(name in settings and not name.startswith("_") for name in read)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr)
_LATER = (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)


def _is_simple(statement: ast.stmt, used: ast.Call, name: str) -> bool:
    """Whether a statement makes a call at once, and sets no name before it is over."""
    inside = [n for n in ast.walk(statement) if isinstance(n, _LATER)]
    sets = any(isinstance(n, ast.NamedExpr) and is_name(n.target, name) for n in ast.walk(statement))
    return isinstance(statement, _SIMPLE) and not sets and not any(used in ast.walk(n) for n in inside)


def _is_handed_on(source: Source, block: list[ast.stmt], used: ast.Call) -> bool:
    """Whether the name that the first statement sets is read once, by a call in the last one."""
    first, *between, last = block
    (argument,) = used.args
    name = argument.id if isinstance(argument, ast.Name) else ""
    targets = first.targets if isinstance(first, ast.Assign) else []
    if len(targets) != 1 or not is_name(targets[0], name) or not _is_simple(last, used, name):
        return False
    if any(isinstance(n, _LEAVES_BLOCK) or binds(n, name) for s in between for n in ast.walk(s)):
        return False
    later = [inner for inner in nodes_of(source.tree)[1:] if isinstance(inner, _FUNCTIONS)]  # called at any time
    if _reads(later, name) or _reads(block[1:], name) != 1:
        return False
    # Where an exception between the two is caught, the name still has what the first one gave.
    return _reads([source.tree], name) == 1 or (_sets(last, name) and not _may_be_caught(source, first))


def _may_be_caught(source: Source, statement: ast.stmt) -> bool:
    """Whether a statement is in a block that may end by an exception, and the function go on."""
    parents, node = parents_of(source.tree), cast("ast.AST", statement)
    known = source.function.__globals__.get("torch") is torch
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.With):
            if not known or not all(ast.unparse(item.context_expr).startswith("torch.") for item in node.items):
                return True
        elif isinstance(node, _CATCHES):
            return True
    return False


_CATCHES = (ast.Try, ast.AsyncWith, getattr(ast, "TryStar", ast.Try))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_set(node: ast.Attribute) -> bool:
    return not isinstance(node.ctx, ast.Load)


def _is_load(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _reads(nodes: Sequence[ast.AST], name: str) -> int:
    return sum(_is_load(inner, name) for node in nodes for inner in ast.walk(node))


def _sets(statement: ast.stmt, name: str) -> bool:
    """Whether a statement gives the name a new value, so that what is read later is another one."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
