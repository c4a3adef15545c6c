"""The models of peers' own test suites, fused by fxfuse and by the peers: norms left, and how far off the result is.

The suites come with packages: torch's models for tests of its quantization (their file needs ``expecttest``).  Nothing
of theirs is copied.  ``python benchmarks/peer_suites.py`` prints a line for each tool.
"""

# ruff: noqa: INP001, BLE001, S112 - a script; a tool, and a model of a suite, may raise whatever it likes

from __future__ import annotations

import copy
import importlib
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from common import parse, parser, show
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse import FuseError, fx_fuse
from fxfuse.cli.models import randomize
from fxfuse.pipeline.norm_kernels import NormKernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUITES = ("torch.testing._internal.common_quantization",)
CLOSE = 1e-4  # in float32


def models() -> Iterator[tuple[str, nn.Module, tuple[Any, ...]]]:
    """The models of all suites that are there, each with example inputs."""
    for suite in SUITES:
        try:
            found = importlib.import_module(suite)
        except ImportError as error:
            print(f"{suite} is left out: {error}")  # noqa: T201
            continue
        for name, cls in vars(found).items():
            own = isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__ == suite
            if own and hasattr(cls, "get_example_inputs"):
                try:
                    model = cls().eval()
                    yield name, model, tuple(model.get_example_inputs())
                except Exception:
                    continue  # it needs arguments, or a machine that is not here


def _optimization(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    del inputs
    return importlib.import_module("torch.fx.experimental.optimization").fuse(model)


def _quantization(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    del inputs
    return importlib.import_module("torch.ao.quantization.quantize_fx").fuse_fx(model)


def _freezing(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return torch.jit.optimize_for_inference(torch.jit.trace(model, inputs))


def _exported(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return fx_fuse(torch.export.export(model, inputs)).module()


TOOLS: dict[str, Callable[[nn.Module, tuple[Any, ...]], Any]] = {
    "fxfuse": lambda model, _: fx_fuse(model),
    "fxfuse, with inputs": fx_fuse,
    "fxfuse, exported": _exported,
    "torch.fx.experimental.optimization": _optimization,
    "torch.ao fuse_fx": _quantization,
    "torch.jit.optimize_for_inference": _freezing,
}


def run(model: Any, inputs: tuple[Any, ...]) -> tuple[list[Tensor], int]:
    """What a model gives, and how many norms run."""
    means: dict[int, Tensor] = {}
    with torch.no_grad(), NormKernels(means):
        result = model(*copy.deepcopy(inputs))
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)], len(means)


def outcome(
    tool: Callable[[nn.Module, tuple[Any, ...]], Any], model: nn.Module, inputs: tuple[Any, ...]
) -> tuple[str, int, int]:
    """In a word what became of a model, and how many norms ran before and after."""
    expected, before = run(model, inputs)
    try:
        given, after = run(tool(copy.deepcopy(model), inputs), inputs)
    except FuseError:
        return "refused", before, before
    except Exception:
        return "raises", before, before
    gaps = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in zip(expected, given, strict=True)]
    return "right" if max(gaps, default=0.0) < CLOSE else "wrong", before, after


def main() -> None:
    """Print a line for each tool."""
    parse(parser(__doc__))
    warnings.simplefilter("ignore")
    counted = {name: Counter[str]() for name in TOOLS}
    norms = {name: [0, 0] for name in TOOLS}
    for _, model, inputs in models():
        randomize(model)
        for name, tool in TOOLS.items():
            word, before, after = outcome(tool, model, inputs)
            counted[name][word] += 1
            norms[name] = [norms[name][0] + before, norms[name][1] + after]
    words = ("right", "wrong", "raises", "refused")
    rows = [(name, *(counted[name][word] for word in words), *norms[name]) for name in TOOLS]
    show(rows, ("tool", *words, "norms before", "norms left"))


if __name__ == "__main__":
    main()
