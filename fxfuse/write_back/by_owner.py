"""What is checked at run time where folds rest on a recorded run: modules that give marked values, and take them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from fxfuse.modules.derived_class import with_change
from fxfuse.modules.handed_on import Handing
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from fxfuse.edit.recorded_editor import Link
    from fxfuse.write_back.replacements import Replacements


def with_checks(model: nn.Module, replaced: Replacements, links: Iterable[Link]) -> bool:
    """Let the modules at both ends of each link check what arrives; return whether there is anything to check.

    Args:
        model: the model.
        replaced: what takes the place of which module; the modules at the ends are exchanged.
        links: what has to be checked.
    """
    givers: dict[str, dict[str, None]] = defaultdict(dict)
    takers: dict[str, dict[str, None]] = defaultdict(dict)
    for link in links:
        givers[link.taker][link.giver] = None
        takers[link.giver][link.taker] = None
    paths = [*givers, *takers]
    for path in dict.fromkeys(paths):
        module: nn.Module = fetch(model, path)
        if module in replaced.modules:
            change = Handing(path, tuple(givers[path]), tuple(takers[path]))
            replaced.modules[module] = with_change(replaced.modules[module], change)
    return bool(paths)
