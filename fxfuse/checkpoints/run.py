"""The steps of a plan, carried out one by one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.algebra.recording import Value
from fxfuse.checkpoints.needed import Families, function_of, is_answer, values_in, written
from fxfuse.report.errors import FuseError, out_of_memory, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from fxfuse.algebra.recording import Step


@dataclass(frozen=True, eq=False)
class Program:
    """Steps, with what is known of them before any tensor is.

    Attributes:
        steps: what is computed, in order.
        outputs: names of tensors that are asked for -> their numbers.
        names: what is not computed -> its name, for a sentence.
    """

    steps: Sequence[Step]
    outputs: dict[str, Value]
    names: dict[Value, str]

    @functools.cached_property
    def made(self) -> set[Value]:
        """The tensors that a step makes."""
        given = {value for values in self.reads for value in values}
        return {value for step in self.steps for value in values_in(step.result)} - given

    @functools.cached_property
    def reads(self) -> list[list[Value]]:
        """The tensors that each step reads first, and no step before it has made."""
        seen, found = set[Value](), list[list[Value]]()
        for step in self.steps:
            found.append([v for v in dict.fromkeys(values_in((step.args, step.kwargs))) if v not in seen])
            seen.update(found[-1], values_in(step.result))
        return found

    @functools.cached_property
    def ready(self) -> dict[int, list[Value]]:
        """The number of a step -> the outputs that no later one changes."""
        families, last = Families(self.steps), dict[Value, int]()
        for number, step in enumerate(self.steps):
            last |= dict.fromkeys(values_in(step.result), number)
            last |= {families.of(value): number for value in written(step)}
        found: dict[int, list[Value]] = {}
        for value in dict.fromkeys(self.outputs.values()):
            if value in self.made:
                found.setdefault(max(last[value], last.get(families.of(value), 0)), []).append(value)
        return found

    @functools.cached_property
    def forget(self) -> dict[int, list[Value]]:
        """The number of a step -> the tensors that are not read after it."""
        last = {v: n for n, step in enumerate(self.steps) for v in values_in((step.args, step.kwargs, step.result))}
        last |= {value: max(number, last[value]) for number, values in self.ready.items() for value in values}
        found: dict[int, list[Value]] = {}
        for value, number in last.items():
            found.setdefault(number, []).append(value)
        return found

    def run(self, read: Callable[[Value], Tensor]) -> Iterator[tuple[Value, Tensor]]:
        """Yield the outputs that are computed, each as soon as it is done, and hold no more tensors than needed.

        Args:
            read: gives a tensor that no step makes.

        Raises:
            FuseError: if a step is not possible here, or the pass would have decided something else.
        """
        values: dict[Value, Tensor] = {}
        begin = 0
        for end, outputs in sorted(
            {**self.ready, len(self.steps) - 1: self.ready.get(len(self.steps) - 1, [])}.items()
        ):
            with torch.no_grad():  # not around what is done with an output in between
                for number in range(begin, end + 1):
                    self._do(number, values, read)
                    if number < end:
                        self._forget(number, values)
            yield from ((value, values[value]) for value in outputs)
            self._forget(end, values)
            begin = end + 1

    def _forget(self, number: int, values: dict[Value, Tensor]) -> None:
        for value in self.forget.get(number, ()):
            values.pop(value, None)

    def _do(self, number: int, values: dict[Value, Tensor], read: Callable[[Value], Tensor]) -> None:
        step = self.steps[number]
        for value in self.reads[number]:
            values[value] = read(value)
        args = [_filled(item, values) for item in step.args]
        kwargs = {key: _filled(item, values) for key, item in step.kwargs.items()}
        try:
            result = function_of(step.name)(*args, **kwargs)
        except (RuntimeError, LookupError) as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            told = (
                f"The plan cannot be carried out here ({sentence(error)}); nothing was changed. Fuse the model again."
            )
            raise FuseError(told) from error
        if type(step.result) is Value:
            values[step.result] = result
        elif is_answer(step):
            self._require_same(number, result, read)
        elif step.result is not None:
            values.update(zip(values_in(step.result), result, strict=True))

    def _require_same(self, number: int, result: Any, read: Callable[[Value], Tensor]) -> None:
        """Refuse values for which the pass would have decided something else."""
        step = self.steps[number]
        if repr(result) == repr(step.result):  # a number that is none equals nothing
            return
        if step.name == "are_finite" and step.result:
            made = [name for name, value in self.outputs.items() if value in step.args]
            what = f"{', '.join(made) or 'A tensor'} of the fused model would hold numbers that are not finite"
            what += f", since {self._infinite(number, read) or 'a variance is below zero, or a number too large'}"
        else:
            names = list(self._origins(number).values())
            some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            what = f"The model would fold in another way with these values of {some}"
        raise FuseError(f"{what}; nothing was changed. Check the weights, or fuse the model again with them.")

    def _infinite(self, number: int, read: Callable[[Value], Tensor]) -> str:
        """Return the names of given tensors with such numbers, as the beginning of a sentence."""
        names = [name for value, name in self._origins(number).items() if not read(value).isfinite().all()]
        return f"{', '.join(names)} hold such numbers" if names else ""

    def _origins(self, number: int) -> dict[Value, str]:
        """Return what went into an answer, with its name."""
        wanted = set(values_in((self.steps[number].args, self.steps[number].kwargs)))
        for earlier in reversed(self.steps[:number]):
            if not wanted.isdisjoint((*values_in(earlier.result), *written(earlier))):
                wanted.update(values_in((earlier.args, earlier.kwargs)))
        return {value: name for value, name in self.names.items() if value in wanted}


def _filled(item: Any, values: dict[Value, Tensor]) -> Any:
    if type(item) is Value:
        return values[item]
    return [_filled(one, values) for one in item] if type(item) is list else item
