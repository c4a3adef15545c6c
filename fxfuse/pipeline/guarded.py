"""One pass that lets no other error out than a ``FuseError``."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from fxfuse.pipeline.checks import require_fusable
from fxfuse.pipeline.run import fuse, put_into
from fxfuse.report.errors import FuseError, out_of_memory, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

    from fxfuse.pipeline.attempt import Attempt
    from fxfuse.pipeline.options import Options


def guarded(
    model: nn.Module | ExportedProgram, example_inputs: Any, options: Options
) -> tuple[Attempt, nn.Module | ExportedProgram]:
    """Fuse, in place if that is asked for, and let no other error out than a ``FuseError``."""
    with as_fuse_errors(f"{type(model).__name__} could not be fused"):
        require_fusable(model, options.structure, inplace=options.inplace, hooks=options.hooks)
        with collection_waits():
            attempt, result = fuse(model, example_inputs, options)
        if options.inplace and isinstance(model, fx.GraphModule):
            result = put_into(model, result)
        return attempt, result


@contextlib.contextmanager
def as_fuse_errors(task: str) -> Iterator[None]:
    """Let no other error out than a ``FuseError``: any other one is a fault of fxfuse, and says so.

    Args:
        task: what fails, as in "ResNet could not be fused".
    """
    try:
        yield
    except FuseError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise FuseError(
                f"{task}, since there is not enough memory ({sentence(error)}); nothing was changed. "
                "Free some, or use a device that has more."
            ) from error
        raise FuseError(
            f"{task} ({sentence(error)}); nothing was changed. This is a fault of fxfuse: please report it with the "
            "model; leaving out a part of the model may help until then."
        ) from error


@contextlib.contextmanager
def collection_waits() -> Iterator[None]:
    """Pause garbage collection inside of the block.

    A pass makes a few objects for each node, and next to no garbage in circles.  Each full collection looks at every
    object of the process, which for large models takes longer than all the rest.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
