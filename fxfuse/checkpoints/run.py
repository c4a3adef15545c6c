"""The steps of a plan, carried out one by one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fxfuse.algebra.tape import Value
from fxfuse.checkpoints.needed import Families, function_of, is_answer, values_in, written
from fxfuse.report.errors import FuseError, out_of_memory, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from fxfuse.algebra.tape import Step


class Turn(NamedTuple):
    """What is done at a step besides the step.

    Attributes:
        reads: tensors that are read first, and that no step before has made.
        done: outputs that no later step changes.
        forget: tensors that no later step reads.
    """

    reads: list[Value]
    done: list[Value]
    forget: list[Value]


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
        """The outputs that a step makes."""
        return {value for turn in self.turns for value in turn.done}

    @functools.cached_property
    def turns(self) -> list[Turn]:
        """What is done at each step besides the step."""
        families, last, changed, seen = Families(self.steps), dict[Value, int](), dict[Value, int](), set[Value]()
        found: list[Turn] = []
        for number, step in enumerate(self.steps):
            read, results = dict.fromkeys(values_in((step.args, step.kwargs))), values_in(step.result)
            found.append(Turn([value for value in read if value not in seen], [], []))
            seen.update(read, results)
            last |= dict.fromkeys((*read, *results), number)
            changed |= {families.of(value): number for value in (*results, *written(step))}
        given = {value for turn in found for value in turn.reads}
        for value in dict.fromkeys(self.outputs.values()):
            if value in last and value not in given:
                done = changed[families.of(value)]
                found[done].done.append(value)
                last[value] = max(last[value], done)
        for value, number in last.items():
            found[number].forget.append(value)
        return found

    @torch.no_grad()  # while this runs, and not around what is done with an output in between
    def run(self, read: Callable[[Value], Tensor]) -> Iterator[tuple[Value, Tensor]]:
        """Yield the outputs that are computed, each as soon as it is done, and hold no more tensors than needed.

        Args:
            read: gives a tensor that no step makes.

        Raises:
            FuseError: if a step is not possible here, or the pass would have decided something else.
        """
        values: dict[Value, Tensor] = {}
        for number, turn in enumerate(self.turns):
            values.update((value, read(value)) for value in turn.reads)
            self._do(number, values, read)
            outputs = [(value, values[value]) for value in turn.done]
            for value in turn.forget:
                values.pop(value, None)
            yield from outputs

    def _do(self, number: int, values: dict[Value, Tensor], read: Callable[[Value], Tensor]) -> None:
        step = self.steps[number]
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
