"""Checks at run time that a value which one layer gives arrives, as it is, where its norm was.

A fold over Python code that was not traced holds for what that code did on the example inputs.  It may do something
else on others.  So what the layer gives goes in a box, until the module opens it in whose place the fold put it.
Nothing else can be done with a box, but to ask for its shape, and to cut it along the first axis: each piece is a box.
A box holds any kind of tensor, and costs nothing in what is exported or compiled, since it is gone once that is traced.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch._guards import CompileContext
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType


class WrongWayError(BaseException):
    """A value went another way than on the example inputs.

    It is no ``Exception``: code of the model that handles errors must not go on with something else.  The model itself
    raises it as a ``FuseError``.
    """


_told = threading.local()  # no class of its own: the compiler would lose what is written to that


def wrong_ways() -> tuple[int, str]:
    """Return how often something went wrong in this thread, also where that was caught, and the last error."""
    found: tuple[int, str] = getattr(_told, "last", (0, ""))
    return found


WHOLE = "whole_model"  # the name of a variable, by which the frame is found in which a fused model runs


class _Handed(NamedTuple):
    """What is in a box.

    Attributes:
        value: the tensor.
        giver: the path of the module that gave it.
        takers: the paths of the modules that have to take it.
        taken: the paths of those that took it.
    """

    value: Any
    giver: str
    takers: tuple[str, ...]
    taken: list[str]


class HandedOn:
    """A box with what a module gave.

    It is no tensor, so that no code of torch's, nor of an extension, gets at the value.
    """

    _handed: _Handed

    def __init__(self, value: Tensor, giver: str, takers: tuple[str, ...]) -> None:
        """Put a value in a box; see ``_Handed``."""
        object.__setattr__(self, "_handed", _Handed(value, giver, takers, []))

    def copied(self) -> HandedOn:
        """Return a box with a copy of the value, which nobody took; for who calls modules once more."""
        value, giver, takers, _ = self._handed
        return HandedOn(value.clone(), giver, takers)

    @property  # type: ignore[misc] # only to be read, as that of any object
    def __class__(self) -> Any:
        """Raise, so that nobody takes the box for a tensor, nor for none; compilers and hooks look at every object."""
        asks = str(sys._getframe(1).f_globals.get("__name__"))
        compiles = CompileContext.try_get() is not None or asks.startswith(("torch._dynamo.", "torch.jit."))
        return HandedOn if compiles or _user(self._handed).startswith("a hook") else _used(self, "isinstance")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what asks for the shape; raise for every other function of torch."""
        del cls, types
        name = getattr(func, "__name__", str(func))
        box = next(leaf for leaf in pytree.tree_leaves((args, kwargs)) if type(leaf) is HandedOn)
        if name in _CUTS and args and args[0] is box:
            return box._pieces(name, *args[1:], **(kwargs or {}))
        return getattr(box, name)() if name in _ASKED else _used(box, name)

    def __getattr__(self, name: str) -> Any:
        """Answer what asks for the shape; raise for everything else that a tensor has."""
        if name in _ASKED:
            return getattr(self._handed.value, name)
        if name in _CUTS:
            return functools.partial(self._pieces, name)
        if name == "_handed" or not hasattr(type(self._handed.value), name):
            raise AttributeError(name)
        return _used(self, name)

    def _pieces(self, name: str, size: Any, dim: int = 0) -> tuple[HandedOn, ...]:
        """Return boxes with the pieces of the value, which has gone with them: no two results share memory."""
        value, giver, takers, taken = self._handed
        if dim != 0 or taken:
            _used(self, name)
        taken += takers
        return tuple(HandedOn(piece, giver, takers) for piece in getattr(value, name)(size))

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise: who sets an attribute means the tensor."""
        _used(self, name)

    def __len__(self) -> int:
        """Return the size of the first axis."""
        return len(self._handed.value)


_CUTS = ("chunk", "split")
_ASKED = frozenset(
    "shape size dim ndim ndimension numel nelement dtype device layout is_floating_point is_complex element_size "
    "get_device is_contiguous stride storage_offset is_cuda is_cpu is_meta is_sparse is_quantized is_mps requires_grad "
    "is_leaf nbytes itemsize grad_fn".split()
)


def _operator(name: str) -> Callable[..., Any]:
    return lambda box, *_: _used(box, name)


_COMPARE = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}  # Python's own class has them too
_OTHERS = {*dir(HandedOn), "__setstate__", "__torch_dispatch__"} - _COMPARE
for _name in dir(Tensor):
    if _name.startswith("__") and _name not in _OTHERS and callable(getattr(Tensor, _name)):
        setattr(HandedOn, _name, _operator(_name))


def unboxed(value: Any) -> Any:
    """Return a value, or what holds some, without boxes: for who only looks at what a module gets or gives."""
    return pytree.tree_map(lambda leaf: leaf._handed.value if type(leaf) is HandedOn else leaf, value)


def _used(box: HandedOn, name: str) -> NoReturn:
    raise wrong_way(f"{_user(box._handed)} uses it ({name})", box._handed.giver, box._handed.takers)


def _user(handed: _Handed) -> str:
    """Return whose code runs; the compiler cannot ask for that."""
    frame: FrameType | None = None if torch.compiler.is_compiling() else sys._getframe()
    inner = None
    while frame is not None and WHOLE not in frame.f_locals:
        here = frame.f_locals.get("self")
        inner = here if inner is None and issubclass(type(here), nn.Module) else inner  # it may be a box
        frame = frame.f_back
    if frame is None:
        return "other code"
    path = next((path for path, module in frame.f_locals[WHOLE].named_modules() if module is inner), "")
    if path in (handed.giver, *handed.takers):
        return f"a hook of '{path}'"
    return f"'{path}'" if path else "the model's own code"


def wrong_way(what: str, giver: str, takers: Iterable[str]) -> WrongWayError:
    """Return the error, which the model will raise even if its code catches it here."""
    names = " and ".join(f"'{path}'" for path in takers)
    text = (
        f"fxfuse folded '{giver}' and {names} together: on the example inputs, what '{giver}' gave went to {names} and "
        f"nowhere else. Now {what}. Fuse again with an example of each way, as in "
        "fx_fuse(model, [Inputs(a), Inputs(b)]). guards=False leaves this check out."
    )
    _told.last = wrong_ways()[0] + 1, text
    return WrongWayError(text)
