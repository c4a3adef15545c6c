"""A fold that rests on a recorded run: another way of calling is an error that names both modules, never a number."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import FuseError, Inputs, Report, fx_fuse
from tests.support.helpers import Model, trained, values

ADVICE = r"Fuse again with an example of each way, as in fx_fuse\(model, \[Inputs\(a\), Inputs\(b\)\]\)"


class Branches(Model):
    """Untraceable: the way through it depends on an argument that is no tensor, and on values."""

    way: Any = ""

    def forward(self, x: Tensor, way: str = "") -> Any:  # noqa: C901, PLR0911 - each way is a test
        if x.sum() > 1e9:
            x = -x
        if way == "norm alone":
            return self.bn(x.repeat(1, 2, 1, 1)[:, :4])
        y = self.conv(x)
        if way == "layer alone":
            return y
        if way == "layer used":
            return y.relu()
        if way == "raises between":
            raise KeyError(way)
        if way == "dropped":
            y = self.conv(x + 1)
        z = self.bn(y)
        if way == "branch":
            return z + y
        if way == "taken twice":
            return z, self.bn(y)
        if way == "written in place":
            y.data = x
            return self.bn(y)
        if way == "in an object":
            return {"out": z, "deep": [(y,)]}
        if way == "two calls":
            return z + self.bn(self.conv(x * 2))
        if way == "crossed":
            other = self.conv(x * 2)
            return self.bn(other) - z
        return z


def model() -> Branches:
    return trained(Branches(conv=nn.Conv2d(3, 4, 3, padding=1), bn=nn.BatchNorm2d(4)))


X = values(2, 3, 6, 6)


def fused(original: nn.Module, **options: Any) -> Any:
    result = fx_fuse(original, X, **options)
    assert [(d.path, d.evidence) for d in Report.of(result).folded] == [("bn", "recorded")]
    return result


@pytest.mark.parametrize("way", ["", "two calls", "crossed", "dropped"])
def test_what_arrives_is_right(way: str) -> None:
    original = model()
    torch.testing.assert_close(fused(original)(X, way), original(X, way), rtol=1e-11, atol=1e-11)


WRONG = ["layer alone", "layer used", "norm alone", "branch", "in an object", "taken twice", "written in place"]


@pytest.mark.parametrize("way", WRONG)
def test_another_way_is_an_error(way: str) -> None:
    result = fused(model())
    with pytest.raises(FuseError, match=ADVICE) as caught:
        result(X, way)
    assert "'conv'" in str(caught.value)
    assert "'bn'" in str(caught.value)


@pytest.mark.parametrize("way", ["layer used", "norm alone", "branch"])
def test_an_example_of_the_call_keeps_the_norm(way: str) -> None:
    original = model()
    result = fx_fuse(original, [Inputs(X), Inputs(X, way=way)])
    assert not Report.of(result).folded
    for each in ("", way):
        assert torch.equal(result(X, each), original(X, each))


def test_several_examples_that_agree_fold() -> None:
    original = model()
    result: Any = fx_fuse(original, [Inputs(X), Inputs(X[:1], way="two calls"), Inputs(x=X)])
    assert [d.path for d in Report.of(result).folded] == ["bn"]
    for way in ("", "two calls"):
        torch.testing.assert_close(result(X, way), original(X, way), rtol=1e-11, atol=1e-11)


def test_an_exception_between_leaves_nothing() -> None:
    original = model()
    result = fused(original)
    with pytest.raises(KeyError, match="raises between"):
        result(X, "raises between")
    torch.testing.assert_close(result(X), original(X), rtol=1e-11, atol=1e-11)


def test_threads_do_not_meet() -> None:
    original = model()
    result = fused(original)
    found: dict[str, Any] = {}

    def call(way: str) -> None:
        for _ in range(20):
            with contextlib.suppress(FuseError):
                found[way] = result(X, way)

    threads = [threading.Thread(target=call, args=(way,)) for way in ("", "two calls", "branch")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "branch" not in found
    for way in ("", "two calls"):
        torch.testing.assert_close(found[way], original(X, way), rtol=1e-11, atol=1e-11)


class Elsewhere(Model):
    """Its norm runs in another thread."""

    def forward(self, x: Tensor, *, apart: bool = False) -> Tensor:
        if x.sum() > 1e9:
            x = -x
        y, found = self.conv(x), list[Tensor]()
        if not apart:
            return self.bn(y)
        thread = threading.Thread(target=lambda: found.append(self.bn(y)))
        thread.start()
        thread.join()
        return found[0]


def test_a_norm_in_another_thread_takes_what_the_layer_gave() -> None:
    original = trained(Elsewhere(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    result: Any = fx_fuse(original, X)
    assert Report.of(result).folded
    torch.testing.assert_close(result(X, apart=True), original(X, apart=True), rtol=1e-11, atol=1e-11)
    stays = fx_fuse(original, Inputs(X, apart=True))  # nobody sees what runs there
    assert not Report.of(stays).folded


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_check_too(copied: Any) -> None:
    original = model()
    result = copied(fused(original))
    torch.testing.assert_close(result(X), original(X), rtol=1e-11, atol=1e-11)
    with pytest.raises(FuseError, match=ADVICE):
        result(X, "branch")


def test_without_guards_nothing_is_checked() -> None:
    original = model()
    result = fused(original, guards=False)
    assert type(result.conv) is nn.Conv2d
    assert type(result.bn) is nn.Identity
    torch.testing.assert_close(result(X), original(X), rtol=1e-11, atol=1e-11)


def test_gradients_pass() -> None:
    original = model()
    result = fused(original)
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    for each, x in zip((original, result), inputs, strict=True):
        each(x).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)


def test_a_fused_model_is_not_folded_again() -> None:
    result = fused(model())
    again: Any = fx_fuse(result, X)
    assert not Report.of(again).folded
    with pytest.raises(FuseError, match=ADVICE):
        again(X, "branch")
