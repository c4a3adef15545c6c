"""Derived classes of layers that put their result in a box, or open one; and of a model, which gives no box back.

A box holds a value until the layer that should get it opens it: see ``handed_on.py``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxfuse.modules.handed_on import HandedOn, WrongWayError, wrong_way, wrong_ways
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Handing:
    """The change of a class: it takes boxes, gives them, or both.

    Attributes:
        path: the path of the module in the model.
        givers: the paths of the modules of which it must get the result; empty for none.
        takers: the paths of the modules that must take its result; empty for none.
        copies: the norm that is gone gave new memory, so that this must give a copy of what it gets.
    """

    path: str
    givers: tuple[str, ...] = ()
    takers: tuple[str, ...] = ()
    copies: bool = False

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Wrap the forward of ``base``."""
        original = base.forward

        @torch.jit.unused  # which would compile the original, without the check
        @functools.wraps(original)
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.givers and len(args) == 1 and not kwargs and type(args[0]) is HandedOn:
                args = (self._opened(args[0]),)
            elif self.givers:
                args, kwargs = self._found(args, kwargs)
            result = original(module, *args, **kwargs)
            return self._boxed(result) if self.takers else result

        return forward

    def _found(self, args: Any, kwargs: Any) -> Any:
        """Return arguments with what is in the one box among them; raise if there is none, or another tensor."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        _require_run(leaves)
        tensors = [n for n, leaf in enumerate(leaves) if type(leaf) is HandedOn or isinstance(leaf, Tensor)]
        if len(tensors) != 1 or type(leaves[tensors[0]]) is not HandedOn:
            raise wrong_way(f"'{self.path}' gets something else", self.givers[0], [self.path])
        leaves[tensors[0]] = self._opened(leaves[tensors[0]])
        return pytree.tree_unflatten(leaves, spec)

    def _opened(self, box: HandedOn) -> Any:
        handed = box._handed
        if handed.giver not in self.givers or self.path in handed.taken:
            what = "takes it twice" if handed.giver in self.givers else "gets it"
            raise wrong_way(f"'{self.path}' {what}", handed.giver, handed.takers)
        handed.taken.append(self.path)
        return handed.value

    def _boxed(self, result: Any) -> HandedOn:
        _require_run([result])
        if type(result) is HandedOn or not isinstance(result, Tensor):
            raise wrong_way(f"'{self.path}' gives something else", self.path, self.takers)
        return HandedOn(result.clone() if self.copies else result, self.path, self.takers)


@dataclass(frozen=True)
class Closing:
    """The change of the class of a whole model: it raises what went wrong inside, and no box leaves it."""

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Wrap the forward of ``base``."""
        original = base.forward

        @torch.jit.unused  # which would compile the original, without the check
        @functools.wraps(original)
        def forward(whole_model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            before = wrong_ways()
            try:
                result = _closed(original(whole_model, *args, **kwargs))
            except WrongWayError as error:
                raise FuseError(str(error)) from error
            if wrong_ways() != before:  # the code of the model caught it
                raise FuseError(wrong_ways()[1])
            return result

        return forward


def _closed(result: Any) -> Any:
    for leaf in () if type(result) is Tensor else pytree.tree_leaves(result):
        if type(leaf) is HandedOn:
            raise wrong_way("the model returns it", leaf._handed.giver, leaf._handed.takers)
    return result


def _require_run(values: Iterable[Any]) -> None:
    """Refuse to be traced symbolically, which no check would survive."""
    if any(issubclass(type(value), fx.Proxy) for value in values):  # a box says no class
        raise fx.proxy.TraceError("a fold on example inputs is checked there whenever the model runs")
