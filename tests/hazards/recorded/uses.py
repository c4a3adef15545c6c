"""A model of which a layer may be used in several ways, and ways to call it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse
from tests.support.helpers import Model, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


X = values(2, 3, 6, 6)


class Uses(Model):
    """What its layer gives may go several ways; the handlers of errors keep it from being traced."""

    way = ""

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        if self.way == "shape":
            return self.bn(y) * y.shape[1] + y.size(0) + torch.numel(y) + len(y)
        if self.way == "caught":
            try:
                return y.relu()
            except Exception:  # noqa: BLE001
                return x
        if self.way == "caught by all means":
            try:
                return self.bn(x[:, :1].expand(-1, 4, -1, -1))
            except:  # noqa: E722
                return x
        return self.bn(y) if self.way == "" else self.others[self.way](y)

    others: Any = {  # noqa: RUF012 - constants
        "method": lambda y: y.relu(),
        "function": lambda y: torch.cat([y, y]),
        "python": nn.functional.relu,
        "operator": lambda y: 2 * y,
        "in place": lambda y: y.__iadd__(1),
        "index": lambda y: y[:, 0],
        "attribute": lambda y: y.T,
        "truth": lambda y: 1 if y else 2,
        "comparison": lambda y: y == 1,
        "loop": list,
        "set": lambda y: setattr(y, "data", X),
        "float": float,
        "copy": copy.deepcopy,
        "layer": nn.Conv2d(4, 4, 1).double(),
        "class": lambda y: y if isinstance(y, Tensor) else X,
        "operator of torch's": torch.ops.aten.relu.default,
        "leaves": lambda y: y,
    }


WRONG = [*Uses.others, "caught", "caught by all means"]


def fused(**options: Any) -> Any:
    original = trained(Uses(conv=nn.Conv2d(3, 4, 3, padding=1), bn=nn.BatchNorm2d(4)))
    result: Any = fx_fuse(original, X, **options)
    assert [(d.path, d.evidence) for d in Report.of(result).folded] == [("bn", "recorded")]
    return original, result


def compiled(model: nn.Module, **options: Any) -> Tensor:
    torch.compiler.reset()
    given: Tensor = torch.compile(model, backend="eager", **options)(X)
    return given


class Own(Tensor):
    """A class of the user's."""


WAYS_TO_CALL: dict[str, Callable[[Any], Any]] = {
    "simply": lambda model: model(X),
    "compiled": compiled,
    "compiled as a whole": lambda model: compiled(model, fullgraph=True),
    "exported": lambda model: torch.export.export(model, (X,)).module()(X),
    "traced": lambda model: torch.jit.trace(model, X)(X),
    "vmap": lambda model: torch.func.vmap(model)(X[None])[0],
    "jvp": lambda model: torch.func.jvp(model, (X,), (X,))[0],
    "vjp": lambda model: torch.func.vjp(model, X)[0],
    "inference": torch.inference_mode()(lambda model: model(X)),
    "own class": lambda model: model(X.as_subclass(Own)).as_subclass(Tensor),
}
quiet = pytest.mark.filterwarnings("ignore:.torch.jit", "ignore::torch.jit.TracerWarning")
