"""The plan: how each tensor of a fused model is computed from those of the original."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.algebra.tape import Step, Value
from fxfuse.checkpoints.checks import Kind, require_fitting
from fxfuse.checkpoints.json_format import decoded, encoded
from fxfuse.checkpoints.needed import needed, require_known, values_in
from fxfuse.checkpoints.run import Program
from fxfuse.report.errors import FuseError, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """How each tensor of a fused model is computed from those of the original: ``Report.plan`` of a fused model.

    It holds no weights, and needs neither model: new weights of the original give those of the fused model, bit for
    bit as fusing again would.  What the pass decided by values is looked at again.

    Example:
        >>> import torch
        >>> from fxfuse import Report, fx_fuse
        >>> def model() -> torch.nn.Module:
        ...     return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> plan, other = Report.of(fx_fuse(model())).plan, model()
        >>> state = plan.apply(other.state_dict())
        >>> torch.equal(state["0.weight"], fx_fuse(other).get_parameter("0.weight"))
        True

    Attributes:
        inputs: the names in the state dict of the original, with what is there.
        tied: other names of the same tensor -> its first name.
        sources: the numbers of tensors of the original -> their names.
        constants: the numbers of tensors that no state dict holds -> these.
        steps: what is computed, in order.
        outputs: the names in the state dict of the fused model -> numbers of tensors.
        unknown: tensors that came from elsewhere, so that nothing that needs them can be computed.
        settings: what the original was besides its weights, where that is known; it is in no file.
    """

    inputs: dict[str, Kind]
    tied: dict[str, str]
    sources: dict[Value, str]
    constants: dict[Value, Tensor]
    steps: tuple[Step, ...]
    outputs: dict[str, Value]
    unknown: frozenset[Value] = frozenset()
    settings: Settings | None = None

    def apply(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of the fused model for one of the original.

        Tensors that no fold changes are those that were given.

        Args:
            state_dict: tensors by the names of the original; they are read one by one.

        Raises:
            FuseError: if names, shapes or dtypes are others, or values for which the model would fold in another way.
        """
        made = dict(self.stream(state_dict))
        return {name: made[name] for name in self.outputs}

    def stream(self, state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and tensors of the fused model one by one, as soon as each is done.

        At any time no more is in memory than one computation needs.

        Args:
            state_dict: as for ``apply``.

        Raises:
            FuseError: as ``apply``, perhaps after some tensors.
        """
        self.require_names(state_dict)
        for device in dict.fromkeys(kind.device for kind in self.inputs.values()):
            _require_there(device)
        return self._needed._stream(state_dict)

    def require_names(self, state_dict: Mapping[str, Tensor]) -> None:
        """Refuse a state dict with other names, shapes or dtypes than the original's.

        Args:
            state_dict: as for ``apply``.

        Raises:
            FuseError: a sentence that lists what is missing, left over or different.
        """
        plan = self._needed
        require_fitting(state_dict, plan.inputs, dict.fromkeys(plan.sources.values()), plan.tied, plan.outputs)

    def _stream(self, state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        named = {self.tied.get(name, name): name for name in state_dict}  # of tied names the last one counts

        def read(value: Value) -> Tensor:
            if value in self.constants:
                return self.constants[value].clone()  # a step may write into it
            name = self.sources[value]
            return self.inputs[name].laid_out(state_dict[named[name]])

        names: dict[Value, list[str]] = {}
        for name, value in self.outputs.items():
            names.setdefault(value, []).append(name)
        for value in names.keys() - self._program.made:
            tensor = read(value)
            yield from ((name, tensor) for name in names[value])
        for value, tensor in self._program.run(read):
            yield from ((name, tensor) for name in names[value])

    @functools.cached_property
    def _needed(self) -> Plan:
        """The same with nothing but what its outputs, and the questions about values, need."""
        steps = needed(self.steps, self.outputs.values(), self.sources)
        used = {*values_in([(step.args, step.kwargs) for step in steps]), *self.outputs.values()}
        if not used.isdisjoint(self.unknown):
            raise FuseError(
                "A tensor that went into the fused weights was computed where that could not be recorded, so there is "
                "no plan of them; nothing was changed. Fuse the original with the new weights."
            )
        sources = {value: name for value, name in self.sources.items() if value in used}
        constants = {value: tensor for value, tensor in self.constants.items() if value in used}
        return Plan(self.inputs, self.tied, sources, constants, tuple(steps), self.outputs)

    @functools.cached_property
    def _program(self) -> Program:
        return Program(self.steps, self.outputs, self.sources)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, to be kept beside the weights.

        Args:
            path: the file.

        Raises:
            FuseError: if it cannot be written.
        """
        plan = self._needed
        data = {name: encoded(getattr(plan, name)) for name in ("inputs", "tied", "sources", "constants", "outputs")}
        data |= {"format": FORMAT, "version": VERSION, "steps": encoded(plan.steps)}
        try:
            Path(path).write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
        except OSError as error:
            raise FuseError(f"The plan could not be written to {path} ({sentence(error)}).") from error

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan that ``save`` wrote; it is data, and no code.

        Args:
            path: the file.

        Raises:
            FuseError: if it is none, or one of another version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return Plan._of(data)
        except Exception as error:
            told = f"{path} cannot be read as a plan ({sentence(error)}); nothing was done. Pass what Plan.save wrote."
            raise FuseError(told) from error

    @staticmethod
    def _of(data: dict[str, Any]) -> Plan:
        if (data["format"], data["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {data['format']} of version {data['version']}, and not {FORMAT} of {VERSION}")
        inputs, tied, outputs = (decoded(data[name]) for name in ("inputs", "tied", "outputs"))
        sources, constants = (
            {Value(key): value for key, value in decoded(data[name]).items()} for name in ("sources", "constants")
        )
        kinds = {name: Kind(tuple(shape), tuple(stride), *rest) for name, (shape, stride, *rest) in inputs.items()}
        steps = tuple(Step(name, tuple(args), kwargs, result) for name, args, kwargs, result in decoded(data["steps"]))
        for step in steps:
            require_known(step.name)
        return Plan(kinds, tied, sources, constants, steps, outputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        """Return the plan: nothing changes it."""
        return self


def _require_there(device: torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise FuseError(
            f"The model was fused on {device}, which is not here ({sentence(error)}); nothing was changed. For a plan "
            "that runs here, fuse the model here."
        ) from error


FORMAT, VERSION = "fxfuse plan", 1
