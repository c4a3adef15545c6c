"""Code that was watched may cut a value along the batch, and hand the pieces on: the ghost norms of TabNet."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse
from tests.hazards.recorded.uses import WAYS_TO_CALL, quiet
from tests.hazards.recorded.uses import X as IMAGES
from tests.support.helpers import Model, assert_equal, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

X = values(5, 3)


class Ghost(Model):
    """A norm that takes two rows at a time."""

    def forward(self, x: Tensor) -> Tensor:
        count = -(-len(x) // 2)
        return torch.cat([self.norm(piece) for piece in self.cut(x, count)], 0)

    cut: Callable[[Any, int], Any]


class Around(Model):
    """A layer before it, and something else on demand; the handler of errors keeps it from being traced."""

    way = ""

    def forward(self, x: Tensor) -> Any:
        try:
            y = self.layer(x)
        except ValueError:
            return x
        return self.ghost(y) if self.way == "" else self.others[self.way](self, y)

    others: Any = {  # noqa: RUF012 - constants
        "a piece is used": lambda _, y: y.chunk(2)[0] * 2,
        "a piece leaves": lambda _, y: y.split(2)[1],
        "after the pieces": lambda m, y: (y.split(2), m.ghost.norm(y))[1],
        "before the pieces": lambda m, y: (m.ghost.norm(y), y.split(2))[0],
        "cut twice": lambda m, y: (y.split(2), m.ghost(y))[1],
        "a piece twice": lambda m, y: [m.ghost.norm(p) for p in y.split(5) * 2],
        "another axis": lambda m, y: m.ghost.norm(y.chunk(2, 1)[0]),
        "another axis by name": lambda m, y: m.ghost.norm(y.chunk(1, dim=1)[0]),
        "elsewhere": lambda m, y: [m.ghost.norm(p) for p in torch.tensor_split(y, 2)],
    }


CUTS: dict[str, Callable[[Any, int], Any]] = {
    "chunk": lambda x, n: x.chunk(n, 0),
    "torch.chunk": torch.chunk,
    "split": lambda x, _: x.split(2),
    "torch.split": lambda x, _: torch.split(x, 2, dim=0),
    "sizes": lambda x, _: x.split([1, len(x) - 1]),
}


def model(cut: str = "chunk") -> Any:
    ghost = Ghost(norm=nn.BatchNorm1d(4))
    ghost.cut = CUTS[cut]
    return trained(Around(layer=nn.Linear(3, 4), ghost=ghost))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_norm_of_every_piece_folds(cut: str, rows: int) -> None:
    original = model(cut)
    if cut == "sizes" and rows == 1:
        rows = 3
    fused = fx_fuse(original, X[:rows])
    assert folds(fused) == ["ghost.norm"]
    assert Report.of(fused).folded[0].evidence == "recorded"
    for other in (2, 4, 5):  # more and fewer pieces than on the example
        assert_same(original, fused, X[:other])


@torch.no_grad()
@quiet
@pytest.mark.parametrize("call", WAYS_TO_CALL.values(), ids=WAYS_TO_CALL)
def test_pieces_arrive_however_the_model_runs(call: Callable[[Any], Any]) -> None:
    original: Any = trained(Around(layer=nn.Conv2d(3, 4, 1), ghost=Ghost(norm=nn.BatchNorm2d(4))))
    original.ghost.cut = CUTS["split"]
    result: Any = fx_fuse(original, IMAGES)
    assert folds(result) == ["ghost.norm"]
    assert_equal(original(IMAGES), call(result))
    for way in ("a piece is used", "after the pieces"):
        result.way = way
        with pytest.raises(Exception, match=r"'layer' and 'ghost.norm' together"):
            call(result)


@pytest.mark.parametrize("way", Around.others)
def test_another_use_of_a_piece_is_an_error(way: str) -> None:
    original = model()
    fused = fx_fuse(original, X)
    fused.way = way
    with pytest.raises(FuseError, match=r"'layer' and 'ghost.norm' together"):
        fused(X)
    fused.way = ""
    assert_same(original, fused, X)  # nothing is left behind


def test_what_others_read_as_a_whole_stays() -> None:
    class Skips(Around):
        def forward(self, x: Tensor) -> Any:
            try:
                y = self.layer(x)
            except ValueError:
                return x
            return self.ghost(y) + y

    ghost = Ghost(norm=nn.BatchNorm1d(4))
    ghost.cut = CUTS["chunk"]
    original = trained(Skips(layer=nn.Linear(3, 4), ghost=ghost))
    fused = fx_fuse(original, X)
    assert folds(fused) == []
    assert_same(original, fused, X)


def test_a_piece_with_another_norm_stays() -> None:
    class Two(Around):
        def forward(self, x: Tensor) -> Any:
            try:
                first, second = self.layer(x).split([2, len(x) - 2])
            except ValueError:
                return x
            return torch.cat([self.ghost(first), self.norm(second)])

    original = trained(Two(layer=nn.Linear(3, 4), ghost=nn.BatchNorm1d(4), norm=nn.BatchNorm1d(4)))
    fused = fx_fuse(original, X)
    assert folds(fused) == []
    assert_same(original, fused, X)


@torch.no_grad()
def test_a_result_that_cuts_is_copied() -> None:
    fused = fx_fuse(model(), X)
    assert_equal(fused(X), copy.deepcopy(fused)(X))
