"""Arguments that are lists of tensors: with example inputs, a graph may hold for lists of their length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Inputs, Report, fx_fuse
from tests.support.helpers import Model, assert_same, folds, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = [values(1, 3, 6, 6), values(1, 3, 5, 5)]


class Heads(Model):
    """One convolution for all levels, and a norm for each, as in EfficientDet."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__(conv=nn.Conv2d(3, 4, 3), norms=nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2)))
        self.calls = forward

    def forward(self, feats: Any) -> Any:
        return self.calls(self, feats)


def by_loop(model: Any, feats: Any) -> Any:
    found = []
    for number, feature in enumerate(feats):
        found.append(model.norms[number](model.conv(feature)))
    return found


LOOPS: dict[str, Callable[[Any, Any], Any]] = {
    "zip": lambda m, feats: [norm(m.conv(f)) for norm, f in zip(m.norms, feats, strict=True)],
    "enumerate": by_loop,
    "length": lambda m, feats: [m.norms[n](m.conv(feats[n])) for n in range(len(feats))],
    "keys": lambda m, feats: {str(n): m.norms[n](m.conv(f)) for n, f in enumerate(feats)},
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_layer_gets_a_copy_for_each_item(loop: str, kind: type) -> None:
    model = trained(Heads(LOOPS[loop]))
    fused = fx_fuse(model, (kind(FEATURES),))
    assert folds(fused) == ["norms.0", "norms.1"]
    assert any("as long as those of the example inputs" in note for note in Report.of(fused).notes)
    assert_same(model, fused, FEATURES)
    assert_same(model, fused, tuple(reversed(FEATURES)))


def test_another_length_raises() -> None:
    fused = fx_fuse(trained(Heads(by_loop)), (FEATURES,))
    with pytest.raises(ValueError, match="with 2 values in feats, and it was called with 1"):
        fused(FEATURES[:1])


def test_what_folds_for_every_length_does() -> None:
    class Alike(Heads):
        def forward(self, feats: Any) -> Any:
            return [self.norms[0](self.conv(feature)) for feature in feats]

    model = trained(Alike(by_loop))
    fused = fx_fuse(model, (FEATURES,))
    assert folds(fused) == ["norms.0"]
    assert_same(model, fused, FEATURES[:1])
    assert_same(model, fused, FEATURES * 2)


def test_examples_of_several_lengths_are_kept() -> None:
    model = trained(Heads(by_loop))
    fused = fx_fuse(model, [Inputs(FEATURES), Inputs(FEATURES[:1])])
    assert_same(model, fused, FEATURES)
    assert_same(model, fused, FEATURES[:1])


def test_a_list_that_is_written_into_is_the_callers() -> None:
    class Writes(Heads):
        def forward(self, feats: Any) -> Any:
            for number, norm in enumerate(self.norms):
                feats[number] = norm(self.conv(feats[number]))
            return feats

    model = trained(Writes(by_loop))
    fused = fx_fuse(model, (FEATURES,))
    with torch.no_grad():
        for one in (model, fused):
            given = list(FEATURES)
            result = one(given)
            assert result is given
            assert all(isinstance(item, Tensor) and item.shape[1] == 4 for item in given)
