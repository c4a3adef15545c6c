"""The checks at run time that the folds of a recorded run need, put into the modules at both ends of a value."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from fxfuse.modules.derived_class import with_change
from fxfuse.modules.handing import Handing
from fxfuse.modules.lookup import fetch, shallow_copy

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn


class Link(NamedTuple):
    """A value that untraced code hands on, and that has to arrive as it is.

    Attributes:
        giver: the path of the module that gives it.
        taker: the path of the module that must get it.
        copies: whether the norm that is gone gave new memory, where the giver would hand on its own argument.
    """

    giver: str
    taker: str
    copies: bool


def with_checks(
    model: nn.Module, replaced: dict[nn.Module, nn.Module], links: Collection[Link]
) -> dict[nn.Module, nn.Module]:
    """Return the replacements, with modules at both ends of each link that check what arrives.

    Args:
        model: the model.
        replaced: a module of the user's -> what takes its place.
        links: what has to be checked.
    """
    givers: dict[str, dict[str, None]] = defaultdict(dict)
    takers: dict[str, dict[str, None]] = defaultdict(dict)
    for link in links:
        givers[link.taker][link.giver] = None
        takers[link.giver][link.taker] = None
    copying = {link.giver for link in links if link.copies}
    checked = dict(replaced)
    for path in {**givers, **takers}:
        module: nn.Module = fetch(model, path)
        change = Handing(path, tuple(givers.get(path, ())), tuple(takers.get(path, ())), copies=path in copying)
        checked[module] = with_change(checked.get(module) or shallow_copy(module), change)
    return checked
