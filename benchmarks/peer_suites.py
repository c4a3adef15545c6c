"""The models of peers' own test suites, fused by fxfuse and by the peers: norms left, and how far off the result is.

The suites come with packages: torch's models for tests of its quantization (their file needs ``expecttest``), and those
of AIMET (``pip install --no-deps aimet-torch scipy``).  Nothing of theirs is copied.  ``python
benchmarks/peer_suites.py`` prints a line for each suite and tool.
"""

# ruff: noqa: INP001, BLE001, PERF203, S112 - a script; a tool, and a model of a suite, may raise whatever it likes

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import types
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

SUITES = {
    "torch": "torch.testing._internal.common_quantization",
    "AIMET": "aimet_torch.examples.test_models",
}
CLOSE = 1e-4  # in float32
# Models that do not say what they take get the first of these with which they run, as one to three arguments.
SHAPES = ((1, 3, 32, 32), (1, 3, 224, 224), (1, 10, 10, 20), (1, 1, 28, 28), (1, 3, 8, 8), (1, 16, 8, 8), (1, 10))


def models(suite: str) -> Iterator[tuple[str, nn.Module, tuple[Any, ...]]]:
    """The models of a suite that can be made without arguments, each with example inputs."""
    for name, cls in _classes(_loaded(suite), suite):
        try:
            torch.manual_seed(0)
            model = cls().eval()
            inputs = _inputs(model)
            once, again = (run(model, inputs)[0] for _ in range(2))
            if all(map(torch.equal, once, again)):  # else it draws random numbers
                yield name, model, inputs
        except Exception:
            continue  # it needs arguments, or a machine that is not here


def _loaded(suite: str) -> Any:
    """The module of a suite, without what its package imports: that needs many others."""
    package = suite.partition(".")[0]
    if package != "torch" and package not in sys.modules:
        found = importlib.util.find_spec(package)
        sys.modules[package] = bare = types.ModuleType(package)
        bare.__path__ = list((found and found.submodule_search_locations) or ())
    try:
        return importlib.import_module(suite)
    except ImportError as error:
        print(f"{suite} is left out: {error}")  # noqa: T201
        return None


def _classes(holder: Any, suite: str) -> Iterator[tuple[str, type[nn.Module]]]:
    """The classes of models that a module, or a class in it, defines."""
    for name, value in list(vars(holder).items()) if holder is not None else ():
        if isinstance(value, type) and value.__module__ == suite:
            if issubclass(value, nn.Module):
                yield name, value
            else:
                yield from _classes(value, suite)


def _inputs(model: Any) -> tuple[Any, ...]:
    """What a model says that it takes, or else something with which it runs."""
    for name in ("get_example_inputs", "example_inputs"):
        if hasattr(model, name):
            return tuple(getattr(model, name)())
    for shape in SHAPES:
        for count in (1, 2, 3):
            given = tuple(torch.randn(shape) for _ in range(count))
            try:
                run(model, given)
            except Exception:
                continue
            return given
    raise ValueError


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
    words = ("right", "wrong", "raises", "refused")
    rows = []
    for title, suite in SUITES.items():
        counted = {name: Counter[str]() for name in TOOLS}
        norms = {name: [0, 0] for name in TOOLS}
        for _, model, inputs in models(suite):
            randomize(model)
            for name, tool in TOOLS.items():
                word, before, after = outcome(tool, model, inputs)
                counted[name][word] += 1
                norms[name] = [norms[name][0] + before, norms[name][1] + after]
        rows += [(title, name, *(counted[name][word] for word in words), *norms[name]) for name in TOOLS]
    show(rows, ("suite", "tool", *words, "norms before", "norms left"))


if __name__ == "__main__":
    main()
