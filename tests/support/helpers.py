"""What all tests share: models that look trained, and strict comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, fx, nn

from fxfuse import Reason, Report, fx_fuse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

M = TypeVar("M", bound=nn.Module)
Structure = Literal["graph", "module"]
STRUCTURES: tuple[Structure, ...] = ("graph", "module")


class Model(nn.Module):
    """A model of which only the forward is written in a test: the layers are keyword arguments."""

    def __init__(self, **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def values(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random numbers in float64."""
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def trained(model: M) -> M:
    """The model in float64 and evaluation mode, with the numbers of its norms far from those of fresh ones.

    Half of the scales are negative, and no mean is near zero, so that every error shows.
    """
    model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, "running_var", None), Tensor):
                _train_norm(module)
    return model


def _train_norm(norm: Any) -> None:
    count = len(norm.running_var)
    signs = torch.ones(count)
    signs[::2] = -1
    norm.running_mean.copy_((0.5 + torch.rand(count)) * signs.flip(0) * 2)
    norm.running_var.copy_(0.2 + 4 * torch.rand(count))
    if norm.weight is not None:
        norm.weight.copy_((0.5 + 2 * torch.rand(count)) * signs)
    if norm.bias is not None:
        norm.bias.copy_(1 + 3 * torch.rand(count))


def leaves(output: Any) -> list[Any]:
    """The tensors and plain values of an output, in order, each with where it stands."""
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [type(output), *leaves({f.name: getattr(output, f.name) for f in dataclasses.fields(output)})]
    if isinstance(output, Mapping):
        return [type(output), *(leaf for key, value in output.items() for leaf in (key, *leaves(value)))]
    if isinstance(output, (tuple, list)):
        return [type(output), *(leaf for value in output for leaf in leaves(value))]
    return [output]


def run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """What the model gives for copies of the inputs, which it may change."""
    copies = [i.clone() if isinstance(i, Tensor) else i for i in inputs]
    with torch.no_grad():
        return model(*copies)


def assert_same(model: nn.Module, fused: nn.Module, *inputs: Any, rtol: float = 1e-12) -> None:
    """Both give the same, in structure and dtype exactly, in numbers relative to the largest."""
    assert_equal(run(model, inputs), run(fused, inputs), rtol=rtol)


def assert_equal(expected: Any, given: Any, *, rtol: float = 1e-12) -> None:
    """Two outputs are the same, in numbers relative to the largest of each tensor."""
    expected, given = leaves(expected), leaves(given)
    assert len(expected) == len(given)
    for one, other in zip(expected, given, strict=True):
        if not isinstance(one, Tensor):
            assert one == other
            continue
        assert isinstance(other, Tensor)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        largest = one.double().abs().max()
        assert largest.isfinite()
        assert largest > 0, "an output of zeros proves nothing"
        gap = float((one.double() - other.double()).abs().max() / largest)
        assert gap <= rtol, f"relative error {gap:.1e}"


def folds(fused: nn.Module) -> list[str]:
    """The paths of what was folded."""
    return sorted(decision.path for decision in Report.of(fused).folded)


def reasons(fused: nn.Module) -> set[tuple[str, Reason | None]]:
    """The paths of what stays, each with its reason."""
    return {(decision.path, decision.reason) for decision in Report.of(fused).skipped}


def assert_fuses(
    model: nn.Module,
    *inputs: Any,
    folded: Collection[str] = (),
    left: Mapping[str, Reason] | None = None,
    **options: Any,
) -> nn.Module:
    """Fuse; the result gives the same, the model is what it was, and the decisions are exactly these."""
    with unchanged(model):
        fused = fx_fuse(model, **options)
    assert_same(model, fused, *inputs)
    assert folds(fused) == sorted(folded)
    assert reasons(fused) == set((left or {}).items())
    return fused


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Inside of the block nothing about the model changes: tensors, attributes, hooks, modes, graph."""
    before = _snapshot(model)
    yield
    after = _snapshot(model)
    assert list(after) == list(before)
    for path, facts in before.items():
        assert after[path] == facts, f"{path or 'the model'} was changed"


def _snapshot(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        code = str(module.graph) + module.code if isinstance(module, fx.GraphModule) else ""
        found[path] = (id(module), type(module), code, _content(module.__dict__))
    return found


def _content(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (id(value), value.dtype, value.device, value.shape, value.requires_grad, _bytes(value))
    if isinstance(value, Mapping):
        return (id(value), [(key, _content(inner)) for key, inner in value.items()])
    if isinstance(value, (list, tuple)):
        return (id(value), [_content(inner) for inner in value])
    return id(value)


def _bytes(tensor: Tensor) -> list[int]:
    if tensor.is_meta or tensor.is_quantized or type(tensor) not in {Tensor, nn.Parameter}:
        return []
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
