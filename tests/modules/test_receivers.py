"""Who gets a value is the same in every version of Python; see ``test_code``, which also needs no torch."""

from __future__ import annotations

from typing import Any

from fxfuse.modules.code import mentions
from fxfuse.modules.receivers import Receiver, receivers_of_parameter

run: Any = None
tools: Any = None


def gives_to_others(self: Any, x: Any, unknown: Any, number: Any) -> Any:
    # fmt: off
    x = run(self.first, x, mode=True) + tools.later.run(x, self.second) + self.step(self.third, x)
    x = run(x, [x, self], self.fourth, more=x.size(1), other=f"{x}") + unknown(self.unknown)
    x = self.child.run(self.of_child, x)
    for layer in self.looped:
        x = run(layer, x) if x is not None else layer(x)
    both = self.both
    x = run(both, x) + both(x)
    # fmt: on
    listed = [self.step(x, layer2) for layer2 in self.listed]
    return run(self.indexed[number], x), listed, run(*self.starred), run(**self.keyed)


def test_who_gets_what_is_not_called_at_once() -> None:
    found = mentions(gives_to_others.__code__)
    assert {(kind, name, *gets) for kind, name, gets in found.claimed} == {
        ("called", "first", Receiver(("run",), 0)),
        ("called", "second", Receiver(("tools", "later", "run"), 1)),
        ("called", "third", Receiver(("", "step"), 0)),
        ("called", "fourth", Receiver(("run",), 2)),
        ("called", "both", Receiver(("run",), 0)),
        ("elements", "looped", Receiver(("run",), 0)),
        ("elements", "listed", Receiver(("", "step"), 1)),
        ("elements", "indexed", Receiver(("run",), 0)),
    }
    assert {"unknown", "of_child", "starred", "keyed"} <= found.handed
    assert not {name for _, name, _ in found.claimed} & found.read


def test_who_gets_a_parameter() -> None:
    def gives(self: Any, layer: Any, other: Any, last: Any) -> Any:
        def inner() -> Any:
            return last

        return layer(other), self.run(layer), other.conv, inner

    found = [receivers_of_parameter(gives.__code__, number, own=True) for number in (1, 2, 3)]
    assert found == [frozenset([Receiver(("", "run"), 0)]), None, None]
