"""What batch norms multiply by and add, for all of a graph at once: long vectors take hardly longer than short ones."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONSTANTS = ("running_mean", "running_var", "weight", "bias")


class Norm(NamedTuple):
    """A norm by statistics that it keeps.

    Attributes:
        mean: one for each channel.
        variance: one for each channel.
        weight: one for each channel, or None for 1.
        bias: one for each channel, or None for 0.
        eps: what is added to the variance.
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    @property
    def constants(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Its mean, variance, weight and bias."""
        return self.mean, self.variance, self.weight, self.bias

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from every other norm, as long as its tensors live."""
        return (*map(id, self.constants), self.eps)

    @property
    def tensors(self) -> list[Tensor]:
        """Its constants."""
        return [t for t in self.constants if t is not None]


class RunningNorms:
    """The scales and shifts of norms, as vectors in float64, computed together where they can be."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Know nothing yet.

        Args:
            modules: those that a graph calls, of which the norms are likely to be asked for.
        """
        self._modules = modules
        self._known: dict[tuple[object, ...], tuple[Norm, Tensor, Tensor]] = {}  # holds the tensors, so that ids hold

    def scale_and_shift(self, norm: Norm) -> tuple[Tensor, Tensor]:
        """Return what a norm multiplies by, and what it adds."""
        if norm.key not in self._known:
            others = [] if self._known or not _is_usual(norm) else filter(None, map(_norm_of, self._modules))
            for group in _alike([norm, *others]):
                self._known |= {n.key: (n, *vectors) for n, vectors in zip(group, _computed(group), strict=True)}
        return self._known[norm.key][1:]


def _norm_of(module: nn.Module) -> Norm | None:
    """Return a module as a norm, None for one that is none, or that holds anything out of the ordinary."""
    if not isinstance(module, nn.modules.batchnorm._NormBase):
        return None
    own: dict[str, Any] = {**module._buffers, **module._parameters}
    mean, variance, weight, bias = (own.get(name) for name in CONSTANTS)
    eps: object = module.__dict__.get("eps")
    if mean is None or variance is None or not isinstance(eps, float):
        return None
    norm = Norm(mean, variance, weight, bias, eps)
    return norm if _is_usual(norm) else None


def _is_usual(norm: Norm) -> bool:
    """Whether all constants are plain vectors of one length, with values."""
    shape = norm.mean.shape
    return len(shape) == 1 and all(is_plain(t) and not t.is_meta and t.shape == shape for t in norm.tensors)


def _alike(norms: Iterable[Norm]) -> list[list[Norm]]:
    """Return norms of which the constants can be put one behind another, each norm once."""
    groups: dict[object, dict[object, Norm]] = defaultdict(dict)
    for norm in norms:
        kind = [None if t is None else (t.dtype, t.device) for t in norm.constants]
        groups[(*kind, norm.eps)].setdefault(norm.key, norm)
    return [list(group.values()) for group in groups.values()]


def _computed(norms: Sequence[Norm]) -> list[tuple[Tensor, Tensor]]:
    """Return the scale and the shift of norms of one kind."""
    mean, variance = _joined([norm.mean for norm in norms]), _joined([norm.variance for norm in norms])
    weights = [norm.weight for norm in norms if norm.weight is not None]
    biases = [norm.bias for norm in norms if norm.bias is not None]
    # (x - mean) / sqrt(var + eps) * weight + bias, sorted by x
    scale = (variance + norms[0].eps).rsqrt()
    scale = scale * _joined(weights) if weights else scale
    shift = _joined(biases) - mean * scale if biases else -mean * scale
    if len(norms) == 1:
        return [(scale, shift)]
    sizes = [len(norm.mean) for norm in norms]
    return list(zip(scale.split(sizes), shift.split(sizes), strict=True))


def _joined(vectors: Sequence[Tensor]) -> Tensor:
    """Return vectors one behind another, in float64."""
    with torch.no_grad():
        return (torch.cat(list(vectors)) if len(vectors) > 1 else vectors[0].detach()).double()


TENSORS = (Tensor, nn.Parameter, nn.Buffer)


# Dtypes of eight bits have hardly any arithmetic.
_FOLDED_DTYPES = frozenset([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is one of torch's own classes, of a dtype and layout that are folded."""
    return type(tensor) in TENSORS and tensor.dtype in _FOLDED_DTYPES and tensor.layout is torch.strided
