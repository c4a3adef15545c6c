"""The six transforms of the Diverse Branch Block (Ding et al., 2021, https://arxiv.org/abs/2103.13425), by number.

The paper turns its training-time blocks into one convolution by hand.  Here the graph alone is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.rules.merge_cases import kernels
from tests.support.helpers import Structure, assert_same, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

IN, OUT, INNER = 4, 6, 8


class Block(nn.Module):
    """Some branches that are added, or put behind one another."""

    def __init__(self, *branches: nn.Module, join: Callable[[list[Tensor]], Tensor] = sum) -> None:  # type: ignore[assignment] # of tensors
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join([branch(x) for branch in self.branches])


def conv(inputs: int, out: int, taps: Any, padding: Any = 0, groups: int = 1) -> nn.Sequential:
    """A convolution without a bias, and its norm, as all branches of the paper have them."""
    return nn.Sequential(nn.Conv2d(inputs, out, taps, padding=padding, groups=groups, bias=False), nn.BatchNorm2d(out))


def pointwise_then(second: nn.Module, padding: int, inner: int = INNER) -> nn.Sequential:
    """A 1x1 convolution that pads, so that its bias stands in the border as well, and what reads it without padding."""
    return nn.Sequential(nn.Conv2d(IN, inner, 1, padding=padding, bias=False), nn.BatchNorm2d(inner), second)


def average(channels: int) -> nn.Sequential:
    """An average pool and its norm."""
    return nn.Sequential(nn.AvgPool2d(3, 1), nn.BatchNorm2d(channels))


def stacked(parts: list[Tensor]) -> Tensor:
    """Branches behind one another."""
    return torch.cat(parts, 1)


TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "I: a norm goes into the convolution before it": lambda: Block(conv(IN, OUT, 3, 1)),
    "II: branches are added": lambda: Block(conv(IN, OUT, 3, 1), conv(IN, OUT, 3, 1)),
    "III: 1x1, KxK": lambda: Block(pointwise_then(conv(INNER, OUT, 3), 1)),
    "III: 1x1, KxK, with groups": lambda: Block(
        nn.Sequential(conv(IN, INNER, 1, groups=2), conv(INNER, OUT, 3, groups=2))
    ),
    "IV: depth concatenation": lambda: Block(conv(IN, OUT, 3, 1), conv(IN, OUT, 3, 1), join=stacked),
    "V: average pooling": lambda: Block(conv(IN, IN, 3), average(IN)),
    "V: 1x1, average pooling, beside KxK": lambda: Block(conv(IN, OUT, 3, 1), pointwise_then(average(OUT), 1, OUT)),
    "VI: kernels of several sizes": lambda: Block(
        conv(IN, OUT, 3, 1), conv(IN, OUT, 1), conv(IN, OUT, (1, 3), (0, 1)), conv(IN, OUT, (3, 1), (1, 0))
    ),
    "the whole block": lambda: Block(
        conv(IN, OUT, 3, 1),
        conv(IN, OUT, 1),
        pointwise_then(conv(INNER, OUT, 3), 1),
        pointwise_then(average(OUT), 1, OUT),
    ),
    "ACNet: a cross on a square": lambda: Block(
        conv(IN, OUT, 3, 1), conv(IN, OUT, (1, 3), (0, 1)), conv(IN, OUT, (3, 1), (1, 0))
    ),
}
# Where the class is kept, no layer takes others in that has to have other channels or taps for it.
RESIZED = ("III: 1x1, KxK", "III: 1x1, KxK, with groups", "IV: depth concatenation")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_one_convolution_is_left(name: str, structure: Structure) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(trained(TRANSFORMS[name]()), nn.ReLU()).eval()
    x = values(2, IN, 9, 8)
    fused = fx_fuse(model, x, structure=structure)
    assert_same(model, fused, x)
    if structure == "module" and name in RESIZED:
        assert Reason.OWN_FORWARD in Report.of(fused).by_reason()
    else:
        assert kernels(fused, x) == (1, 0, 0)
