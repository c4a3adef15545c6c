"""A method beside the forward, and which modules it may use by themselves."""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from fxfuse.capture.members import Members
from fxfuse.capture.untraced_code import Code, Reached
from fxfuse.graph.registry import operator_of
from fxfuse.modules.bytecode import following, loads_of, steps_of
from fxfuse.modules.code import Mentions, codes_in, mentions
from fxfuse.modules.method_bytecode import hands_on, returns_nothing
from fxfuse.operators.roles import Linear

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn

# The words in the annotation of a parameter that is no tensor, and steps that only look at a value.
_TEXTS_AND_NUMBERS = frozenset("class str int float bool None Optional Union os PathLike pathlib Path".split())
_LOOKING = frozenset("GET_ITER COMPARE_OP CONTAINS_OP IS_OP".split())


@dataclass(frozen=True, eq=False)
class Method:
    """A method beside the forward.

    Attributes:
        name: its name.
        value: what the class has under that name.
        owner: the class that defines it.
        members: what it may call by name; None for one of a base class without a forward, of which only its own names
            count: such classes keep and load models.
    """

    name: str
    value: Any
    owner: type
    members: Members | None

    @functools.cached_property
    def code(self) -> Code:
        """The method, and those that it names."""
        return Code(self.members or Members(()), [(self.value, self.owner)], helpers=self.members is not None)

    @functools.cached_property
    def _mentions(self) -> list[Mentions]:
        return [mentions(function.__code__) for function in self.code.functions]

    @functools.cached_property
    def _reached(self) -> dict[nn.Module, Reached]:
        return {}

    def reached(self, holder: nn.Module) -> Reached:
        """Return the modules to which it comes by names, if it is called on ``holder``; once for each."""
        if holder not in self._reached:
            self._reached[holder] = self.code.reached([holder])
        return self._reached[holder]

    @functools.cached_property
    def gives_nothing(self) -> bool:
        """Whether it returns None whatever happens."""
        return isinstance(self.value, FunctionType) and returns_nothing(self.value.__code__)

    @functools.cached_property
    def takes_input(self) -> bool:
        """Whether it may be given a tensor: a parameter whose default is a number, a text or a truth value is none."""
        value = inspect.unwrap(self.value) if isinstance(self.value, FunctionType) else self.value
        if isinstance(value, (property, functools.cached_property)) or not isinstance(value, FunctionType):
            return not isinstance(value, (property, functools.cached_property))
        parameters = list(inspect.signature(value).parameters.values())[1:]
        plain = all(type(p.default) in (int, float, str, bool) for p in parameters)
        return not plain or self.name.startswith("__")

    @functools.cached_property
    def hands_input_on(self) -> bool:
        """Whether it gives a value, and hands on a required argument that may be a tensor: ``layer(x)``."""
        if self.gives_nothing or not isinstance(self.value, FunctionType):
            return False
        function = inspect.unwrap(self.value)
        given = {p.name for p in [*inspect.signature(function).parameters.values()][1:] if _may_be_tensor(p)}
        return any(
            not given.isdisjoint(loads_of(step)) and following(steps, number).opname not in _LOOKING
            for steps in map(steps_of, codes_in(function.__code__))
            for number, step in enumerate(steps)
        )

    @functools.cached_property
    def is_idle(self) -> bool:
        """Whether it does nothing with what it is given."""
        plain = getattr(self.value, "__func__", self.value)
        if not isinstance(plain, FunctionType) or mentions(plain.__code__).names:
            return False
        return not any(step.opname.startswith(("CALL", "BINARY", "GET_ITER")) for step in steps_of(plain.__code__))

    def uses(self, holder: nn.Module, held_as: Mapping[nn.Module, set[str]]) -> set[nn.Module]:
        """Return the modules that it may call by themselves, or compute with, if it is called on ``holder``.

        Args:
            holder: the module.
            held_as: the names under which modules are held.
        """
        if self.is_idle:
            return set()
        touched = self._touched(holder)
        if self.takes_input and not self.gives_nothing:
            return touched
        # It sets layers up, or gives layers or numbers, unless it calls layers, or reads tensors itself.
        called = mentions(self.value.__code__).called if self.gives_nothing else self.code.calls
        read = frozenset[str]() if self.gives_nothing else self.code.values
        return {
            module
            for module in touched
            if not called.isdisjoint(held_as.get(module, ()))
            or not read.isdisjoint((*module._parameters, *module._buffers))
        }

    def _touched(self, holder: nn.Module) -> set[nn.Module]:
        """Return the modules that it may come to, if it is called on ``holder``."""
        touched, computes = self.reached(holder).touched, self._computes(holder)
        if "other" in computes:
            return set(holder.modules())
        return touched.union(*(module.children() for module in touched)) if computes else touched

    def _computes(self, holder: nn.Module) -> set[str]:
        """Return how it gets layers by names that are none of its texts."""
        found = self._mentions
        return {how for each in found if each.texts.isdisjoint(holder._modules) for how in each.computes}

    def sets(self, names: Collection[str]) -> bool:
        """Whether it gives a value, and sets an attribute of one of some names for that."""
        if not isinstance(self.value, FunctionType) or not self.takes_input or self.gives_nothing:
            return False
        return any(not (f.own_stored | f.stored).isdisjoint(names) for f in self._mentions)

    def joins(self, holder: nn.Module, fold: Collection[nn.Module], *, downstream: bool) -> bool:
        """Whether it gives what one layer of a fold gives to the other, and to nothing else."""
        linear = [m for m in fold if (row := operator_of(m)) is not None and issubclass(row.view, Linear)]
        order = [*linear, *(m for m in fold if m not in linear)][:: -1 if downstream else 1]
        names = [[n for n, child in holder._modules.items() if child is m] for m in order]
        texts = frozenset[str]().union(*(found.texts for found in self._mentions))
        if (
            self._computes(holder)
            or len(fold) != 2
            or len(linear) != 1
            or [len(found) for found in names] != [1, 1]
            or self.code.opens
        ):
            return False
        (one,), (two,) = names
        using = [f for f in self.code.functions if not mentions(f.__code__).names.isdisjoint((one, two))]
        return (
            len(using) == 1
            and texts.isdisjoint((one, two))
            and self.reached(holder).opened.isdisjoint(fold)
            and hands_on(using[0].__code__, one, two)
        )


def _may_be_tensor(parameter: inspect.Parameter) -> bool:
    """Whether a parameter must be given, and its annotation does not rule out a tensor."""
    listed = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)  # self(*args, **kwargs)
    optional = parameter.default is not parameter.empty or listed
    words = set() if parameter.annotation is parameter.empty else {*re.findall(r"\w+", str(parameter.annotation))}
    return not optional and not (words and words <= _TEXTS_AND_NUMBERS)
