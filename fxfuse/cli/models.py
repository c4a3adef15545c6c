"""Models by name, for the command line: torchvision's, timm's, or any function that returns a module."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import inspect
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fxfuse.checkpoints.files import read_weights
from fxfuse.cli.failures import first_line
from fxfuse.report.errors import FuseError

if TYPE_CHECKING:
    from collections.abc import Callable

    Factory = Callable[[], nn.Module]

NAMES = "one of torchvision, timm:NAME, or package.module:factory"
FILES = (".pt", ".pth", ".pt2", ".onnx", ".safetensors", ".py", ".ckpt", ".bin")


def find(name: str) -> Factory:
    """The function that builds the model ``name``.

    A name is checked here, before anything is built: a typo in the last of ten names costs no time.

    Args:
        name: ``resnet50`` (torchvision), ``timm:repvgg_a0``, or ``package.module:factory``.

    Raises:
        FuseError: there is no such model, or the package it comes from is not installed.
    """
    source, colon, rest = name.partition(":")
    if not colon and (Path(name).is_file() or Path(name).suffix in FILES):
        raise FuseError(
            f'"{name}" is a file, and this takes the name of a model: {NAMES}; --weights takes a file of weights, and'
            " explain and export take an exported program, FILE.pt2"
        )
    if not colon:
        return _torchvision(name)
    return _timm(rest) if source == "timm" else _own(source, rest)


def build(name: str, factory: Factory) -> nn.Module:
    """Call ``factory``: the model in evaluation mode, with random weights that are the same every time."""
    torch.manual_seed(0)
    try:
        # What a function of the user's prints is not what the command says.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the initial weights, which nobody looks at here
            model = factory()
    except Exception as error:
        raise FuseError(f'the model "{name}" cannot be built: {first_line(error)}') from error
    if not isinstance(model, nn.Module):
        raise FuseError(f'"{name}" must return a torch.nn.Module, and returned {type(model).__name__}')
    return model.eval()


def prepared(name: str, factory: Factory, weights: Path | None = None) -> tuple[nn.Module, bool]:
    """Build a model, and take norms that were never trained far from the identity; say whether they were.

    A fresh batch norm hardly changes its input: it would hide every error of a fold, and pass where others do not.

    Args:
        name: its name.
        factory: builds it.
        weights: a file of weights to load into it, which stay as they are.
    """
    model = build(name, factory)
    if weights is not None:
        _load(model, name, weights)
        return model, False
    fresh = weights_are_random(name) or all(map(_is_fresh, norms(model).values()))
    if fresh:
        randomize(model)
    return model, fresh


def _load(model: nn.Module, name: str, weights: Path) -> None:
    try:
        model.load_state_dict(dict(read_weights(weights)))
    except RuntimeError as error:
        raise FuseError(f'"{weights}" holds no weights of {name}: {first_line(error)}') from error


def need(package: str, extra: str = "bench") -> Any:
    """Import an optional package, or say what to install.

    Args:
        package: its name, or that of a module in it.
        extra: the extra of fxfuse that it comes with.

    Raises:
        FuseError: it is not installed, or broken.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise FuseError(
            f'{missing} is not installed; it comes with the extra "{extra}": pip install "fxfuse[{extra}]"'
        ) from error
    except (ImportError, RuntimeError) as error:  # torchvision built for another torch raises both
        raise FuseError(f"{package} is installed but cannot be imported: {first_line(error)}") from error


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Give every norm with running statistics numbers that are far from the identity, in place.

    A tenth of the scales is negative.  Matrices of zeros, with which some heads start, get numbers for the same reason.
    """
    draw = torch.Generator().manual_seed(seed)
    for norm in norms(model).values():
        mean = _floats(norm, "running_mean")
        variance, weight, bias = (_floats(norm, name) for name in ("running_var", "weight", "bias"))
        with torch.no_grad():
            if mean is not None:
                mean.copy_(0.3 * torch.randn(mean.shape, generator=draw))
            if variance is not None:
                variance.copy_(0.5 + 1.5 * torch.rand(variance.shape, generator=draw))
            if weight is not None:
                sign = 1 - 2 * (torch.rand(weight.shape, generator=draw) < 0.1).float()
                weight.copy_(sign * (0.6 + 0.8 * torch.rand(weight.shape, generator=draw)))
            if bias is not None:
                bias.copy_(0.3 * torch.randn(bias.shape, generator=draw))
    for parameter in model.parameters():
        values = None if parameter.is_meta or is_lazy(parameter) else parameter.data
        if values is not None and values.dim() > 1 and not values.any():
            values.copy_(0.02 * torch.randn(values.shape, generator=draw))


def weights_are_random(name: str) -> bool:
    """Whether nobody can have trained the model ``name``, unlike what a function of the user's own returns."""
    source, colon, _ = name.partition(":")
    return not colon or source == "timm"


def without_norms(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose batch norms are gone, which shows what they cost.

    It computes something else.  Merged branches and lowered layers can be faster still.
    What a norm has as children (the activation in timm's ``BatchNormAct2d``) stays.
    """
    bare = copy.deepcopy(model)
    for path, norm in norms(bare).items():
        if path:
            parent, _, name = path.rpartition(".")
            kept = list(norm.children())
            replacement = nn.Sequential(*kept) if kept else nn.Identity()
            setattr(bare.get_submodule(parent), name, replacement.eval())
    return bare


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that normalise by running statistics, by each path they have in ``model``."""
    named = model.named_modules(remove_duplicate=False)
    return {path: module for path, module in named if _floats(module, "running_mean") is not None}


def input_size(model: nn.Module) -> tuple[int, ...]:
    """The shape of one sample: what a timm model says of itself, or 3 x 224 x 224."""
    described = getattr(model, "default_cfg", None)
    size = described.get("input_size") if isinstance(described, dict) else None
    return tuple(size) if size else (3, 224, 224)


def sample(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A random input in the dtype of the weights; the same for the same arguments."""
    draw = torch.Generator().manual_seed(0)
    dtypes = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    return torch.randn(shape, generator=draw).to(dtypes[0] if dtypes else torch.float32)


def _torchvision(name: str) -> Factory:
    """``name`` among the models of torchvision; none of its parts is downloaded."""
    zoo = need("torchvision.models")
    known = zoo.list_models()
    if name not in known:
        close = [f"timm:{name}"] if _in_timm(name) else difflib.get_close_matches(name, known, n=1)
        guess = f' (did you mean "{close[0]}"?)' if close else ""
        raise FuseError(
            f'torchvision has no model "{name}"{guess}; a timm model is written timm:NAME,'
            " and one of your own package.module:factory"
        )
    options = {"weights": None}
    if "weights_backbone" in inspect.signature(zoo.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    return lambda: zoo.get_model(name, **options)


def _in_timm(name: str) -> bool:
    """Whether timm is installed, and has a model of the name."""
    try:
        return need("timm").is_model(name)
    except FuseError:
        return False


def _timm(name: str) -> Factory:
    """``name`` among the models of timm, without its weights."""
    timm = need("timm")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        guess = f'; did you mean "timm:{close[0]}"?' if close else ""
        raise FuseError(f'timm has no model "{name}"{guess}')
    return lambda: timm.create_model(name, pretrained=False)


def _own(module: str, attribute: str) -> Factory:
    """The callable ``attribute`` of the importable ``module``, which may lie in the current directory."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - a string is compared with strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - likewise
    try:
        if not attribute:
            raise ValueError("the name of a function is missing")  # noqa: TRY301 - told as any other name
        with contextlib.redirect_stdout(sys.stderr):
            factory: Any = pkgutil.resolve_name(f"{module}:{attribute}")
    except Exception as error:
        raise FuseError(f'"{module}:{attribute}" cannot be imported: {first_line(error)}') from error
    if isinstance(factory, nn.Module):
        return lambda: copy.deepcopy(factory)
    if not callable(factory):
        raise FuseError(f'"{module}:{attribute}" is neither a function that returns a model nor a model')
    return factory


def _is_fresh(norm: nn.Module) -> bool:
    """Whether a norm has the statistics that it was made with."""
    mean, variance = _floats(norm, "running_mean"), _floats(norm, "running_var")
    fresh = ((value, start) for value, start in ((mean, 0), (variance, 1)) if value is not None and not value.is_meta)
    return all(bool((value == start).all()) for value, start in fresh if not is_lazy(value))


def _floats(module: nn.Module, name: str) -> Tensor | None:
    """The floating-point tensor ``module.name``, if there is one."""
    value = getattr(module, name, None)
    return value if isinstance(value, Tensor) and value.is_floating_point() else None
