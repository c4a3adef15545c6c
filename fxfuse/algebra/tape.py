"""A tape: how tensors are computed from others, so that the same can be computed from other values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._C import _pop_torch_dispatch_stack, _push_on_torch_dispatch_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T", bound=Tensor)


class Value(int):
    """The number of a tensor in a tape."""


class Step(NamedTuple):
    """One operation.

    Attributes:
        name: an operation of torch by its full name (``aten.mul.Tensor``), or of a function in ``STEPS``.
        args: the arguments, a ``Value`` for each tensor.
        kwargs: those that were passed by name.
        result: the ``Value`` of what came out, several in a list, or for what is no tensor what it was.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def __reduce__(self) -> Any:
        """Store memory formats by name: the protocol of pickle that torch.save takes cannot store them."""
        formats = {n: str(v).removeprefix("torch.") for n, v in self.kwargs.items() if type(v) is torch.memory_format}
        others = {name: value for name, value in self.kwargs.items() if name not in formats}
        return _restored, (self.name, self.args, others, formats, self.result)


def _restored(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], formats: dict[str, str], result: Any) -> Step:
    return Step(name, args, {**kwargs, **{key: getattr(torch, word) for key, word in formats.items()}}, result)


class OneStep(NamedTuple):
    """A function of this package that is one step, whatever it does inside.

    Attributes:
        function: the function.
        shares: its results share the memory of its first argument.
    """

    function: Callable[..., Any]
    shares: bool = False


STEPS: dict[str, OneStep] = {}
"""The functions that are one step, by name."""


def step(*, shares: bool = False) -> Callable[[F], F]:
    """Let a tape note a call of a function as one step: all that it does inside would be slow to note.

    Args:
        shares: its results share the memory of its first argument.
    """

    def decorated(function: F) -> F:
        name = function.__name__
        STEPS[name] = OneStep(function, shares)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            mode = _get_current_dispatch_mode()
            return mode.one_step(name, args) if isinstance(mode, Tape) else function(*args)

        return call  # type: ignore[return-value] # of the same signature

    return decorated


class Tape(TorchDispatchMode):
    """While it is entered, every operation on tensors is noted.

    Example:
        >>> import torch
        >>> from fxfuse.algebra.tape import Tape
        >>> given = torch.ones(2)
        >>> with Tape() as tape:
        ...     made = given * 2
        >>> tape.steps[0].name, tape.given[tape.steps[0].args[0]] is given
        ('aten.mul.Tensor', True)

    Attributes:
        steps: what was done, in order.
        given: the tensors that were not made here.
    """

    supports_higher_order_operators = True  # they are noted as any other, and no plan repeats them

    def __init__(self) -> None:
        """Know nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.given: dict[Value, Tensor] = {}
        self._numbers: dict[int, Value] = {}  # of what was given, which lives as long as this
        self._count = 0
        self._names: dict[Any, str] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Have no wrapper around each operation that keeps torch.compile away: nothing here is compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = str(func)
        self._note(name, args, kwargs, result)
        return result

    def __exit__(self, *error: object) -> None:
        """Leave, also where an interruption came while ``one_step`` had left."""
        if _get_current_dispatch_mode() is not self:
            _push_on_torch_dispatch_stack(self)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def one_step(self, name: str, args: tuple[Any, ...]) -> Any:
        """Call one of ``STEPS``, and note that alone."""
        _pop_torch_dispatch_stack(None)  # this one, and no other around it; to leave and enter again costs much more
        try:
            result = STEPS[name].function(*args)
        finally:
            _push_on_torch_dispatch_stack(self)
        self._note(name, args, {}, result)
        return result

    def _note(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        named = {key: self._read(value) for key, value in kwargs.items()} if kwargs else kwargs
        self.steps.append(Step(name, tuple(map(self._read, args)), named, self._made(result)))

    def value_of(self, tensor: Tensor) -> Value | None:
        """Return the number of a tensor; None for one that this never saw."""
        tape, number = tensor.__dict__.get(_NUMBER, _NONE)
        return number if tape is self else self._numbers.get(id(tensor))

    def _read(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            number = self.value_of(value)
            return self._given(value) if number is None else number
        return [self._read(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _given(self, tensor: Tensor) -> Value:
        number = self._numbers[id(tensor)] = self._next()
        self.given[number] = tensor
        return number

    def _made(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            number = self.value_of(result)  # what was written into, and comes back
            if number is None:
                number = self._next()
                result.__dict__[_NUMBER] = self, number
            return number
        return [self._made(item) for item in result] if isinstance(result, (list, tuple)) else result

    def _next(self) -> Value:
        self._count += 1
        return Value(self._count)


_NUMBER, _NONE = "_fxfuse_value", (None, None)


def parameter_of(tensor: Tensor, *, requires_grad: bool) -> nn.Parameter:
    """Return a new parameter with the memory of a tensor, and its number in a tape."""
    made = nn.Parameter(tensor, requires_grad=requires_grad)
    if _NUMBER in tensor.__dict__:
        made.__dict__[_NUMBER] = tensor.__dict__[_NUMBER]
    return made


def taken_number(tensor: Tensor) -> Value | None:
    """Return the number of a tensor in its tape, and forget it."""
    found: Value | None = tensor.__dict__.pop(_NUMBER, _NONE)[1]
    return found
