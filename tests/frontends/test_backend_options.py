"""``torch.compile(model, backend="fxfuse", mode=..., options=...)``: what the inner backend gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from fxfuse import FuseError
from fxfuse.frontends.backend import _Options, fxfuse
from tests.frontends.test_backend import X, compiled, net


@pytest.mark.parametrize("inner", [{"mode": "quick"}, {"options": {"speed": 3}}])
def test_mode_and_options_of_the_inner_backend(inner: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []

    def backend(graph_module: fx.GraphModule, _inputs: Any, **given: Any) -> Any:
        seen.append(given)
        return graph_module

    function = torch.compile(net(), backend=fxfuse, options={"backend": backend, **inner})
    with torch.no_grad():
        function(X)
    assert seen == [inner]


def test_a_mode_that_torch_compile_passes() -> None:
    compile_: Any = torch.compile
    with torch.no_grad(), pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="Unrecognized mode=nope"):
        compile_(net(), backend=fxfuse, mode="nope")(X)
    with pytest.raises(FuseError, match=r"Inductor does not take mode=None, options=\{'nope': 1\}"):
        fxfuse(fx.symbolic_trace(net()), [X], options={"options": {"nope": 1}})
    assert isinstance(_Options.of({"mode": "max-autotune"}).compiler, torch._TorchCompileInductorWrapper)


def test_an_unknown_inner_backend_is_a_sentence() -> None:
    sentence = "There is no backend 'nope' to hand the folded graph to; known are .*inductor"
    with pytest.raises(FuseError, match=sentence):
        fxfuse(fx.symbolic_trace(net()), [X], options={"backend": "nope"})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=sentence), torch.no_grad():
        compiled(net(), backend="nope")(X)


def test_an_option_that_is_none_is_told_and_not_passed_over() -> None:
    with pytest.raises(FuseError, match="guards='no' is neither True nor False"):
        fxfuse(fx.symbolic_trace(net()), [X], options={"guards": "no"})
