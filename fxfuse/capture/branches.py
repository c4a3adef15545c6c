"""Branches of which a trace cannot tell which way they go: they do not matter where every way gives the same graph.

``if x.is_cuda and self.count > 1`` or ``if x.numel() == 0 and self.training`` ask something of a value, and mostly do
nothing then.  So a forward is traced once for each way, and what was traced has to be the same.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from fxfuse.capture.frames import raises_if
from fxfuse.capture.process import OneThread
from fxfuse.capture.proxies import Untraceable
from fxfuse.modules.guards import checks_rank
from fxfuse.report.errors import sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

_MOST = 4  # questions on one way
WHY = "its Python code branches on a value"
# What code calls that speaks to a user, who is not there while it is traced.
_SPEAKS = frozenset(
    "print warn warning warn_once info debug error exception critical log breakpoint set_trace post_mortem embed input "
    "exit quit _exit abort kill".split()
)


class Ways:
    """The answers to the questions of one forward, tried in every combination.

    Attributes:
        answers: those of the way under way.
        asked: how many questions it has asked so far.
        conditions: the nodes that were asked about.
    """

    def __init__(self) -> None:
        """Begin with no question."""
        self.answers: list[bool] = []
        self.asked = 0
        self.conditions: set[fx.Node] = set()

    def answer(self, condition: fx.Node) -> bool | None:
        """Answer a question; None if there are too many."""
        if self.asked == len(self.answers):
            if self.asked == _MOST:
                return None
            self.answers.append(False)
        self.asked += 1
        self.conditions.add(condition)
        return self.answers[self.asked - 1]

    def turn(self) -> bool:
        """Choose the next way; False if there is none."""
        while self.answers and self.answers[-1]:
            self.answers.pop()
        if not self.answers:
            return False
        self.answers[-1], self.asked = True, 0
        self.conditions = set()
        return True


class ManyWays(OneThread):
    """A tracer that goes every way of a forward."""

    ways: Ways | None = None
    _cache: dict[str, Any]  # the proxies of parameters

    def other_ways(self, run: Callable[[], Any], last: fx.Node | None, result: Any) -> Any:
        """Trace in every other way than the first, and return what the last one gives.

        Args:
            run: traces.
            last: the node after which it adds others.
            result: what the first way has given.

        Raises:
            Untraceable: if they do not all give the same.
        """
        assert self.ways is not None  # noqa: S101 - a question was asked
        first = self._written(last, result)
        while self.ways.turn():
            self.take_back(last)
            result = run()
            if first is None or self._written(last, result) != first:
                raise Untraceable(WHY)
        return result

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Keep what would raise as an assertion; any other question for a truth is answered in every way."""
        frame = sys._getframe(2)
        if checks_rank(frame):
            return False
        raising = raises_if(frame)
        return self.answer(obj, frame) if raising is None else self.asserted(obj, truth=not raising)

    def iter(self, obj: fx.Proxy) -> Any:
        """Unpack where the number of values is known; else the number would have to be guessed."""
        try:
            return super().iter(obj)
        except Exception as error:
            self.failure = Untraceable(sentence(error))
            raise

    def answer(self, condition: fx.Proxy, frame: FrameType) -> bool:
        """Answer a question for a truth that only values can tell, which a frame of the user's asks.

        Raises:
            Untraceable: if not every way can be gone: there are too many, or somebody would be told, or asked.
        """
        self.ways = self.ways or Ways()
        answer = None if _SPEAKS & set(frame.f_code.co_names) else self.ways.answer(condition.node)
        if answer is None:
            self.failure = Untraceable(WHY)
            raise self.failure
        return answer

    def asserted(self, condition: fx.Proxy, *, truth: bool) -> bool:
        """Answer a question of which the other answer only raises, and keep that as an assertion."""
        held = condition if truth else self.create_proxy("call_function", operator.not_, (condition,), {})
        self.create_proxy("call_function", torch._assert, (held, "an assertion of the model does not hold"), {})
        return truth

    def take_back(self, last: fx.Node | None) -> None:
        """Erase the nodes that were added after ``last``."""
        for node in reversed(self.graph.nodes):
            if node is last:
                break
            self.graph.erase_node(node)
            for name in [n for n, proxy in self._cache.items() if proxy.node is node]:
                del self._cache[name]

    def _written(self, last: fx.Node | None, result: Any) -> object:
        """Return what was traced after ``last`` without what only answers questions, None where it cannot be told."""
        assert self.ways is not None  # noqa: S101 - a question was asked
        graph = result if isinstance(result, fx.Graph) else self.graph
        nodes = list(graph.nodes)
        nodes = nodes[nodes.index(last) + 1 :] if last in nodes else nodes
        asked = _only_asked(nodes, self.ways.conditions)
        names = {node: number for number, node in enumerate(node for node in nodes if node not in asked)}
        text = [(n.op, str(n.target), *_told((n.args, n.kwargs), names)) for n in names]
        if isinstance(result, fx.Graph):
            return text
        leaves, shape = pytree.tree_flatten(result)
        plain = all(leaf is None or isinstance(leaf, (fx.Proxy, int, float, str)) for leaf in leaves)
        given = [leaf.node if isinstance(leaf, fx.Proxy) else leaf for leaf in leaves]
        return [text, str(shape), *_told(given, names)] if plain and asked.isdisjoint(given) else None


def _only_asked(nodes: list[fx.Node], conditions: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the conditions that nobody reads, and what only they read."""
    asked = {node for node in conditions if not node.users}
    for node in reversed(nodes):
        if node.users and asked.issuperset(node.users) and node.op not in ("placeholder", "output"):
            asked.add(node)
    return asked


def _told(value: Any, names: dict[fx.Node, int]) -> list[object]:
    """Return arguments with the numbers of nodes in place of nodes, and of other objects who they are."""
    leaves, shape = pytree.tree_flatten(fx.node.map_arg(value, lambda node: ("node", names.get(node, node.name))))
    return [str(shape), *(leaf if isinstance(leaf, (int, float, str)) else repr(leaf) for leaf in leaves)]
