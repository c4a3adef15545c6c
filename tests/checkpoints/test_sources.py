"""Where checkpoints come from: what wraps a model, and what loads one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fxfuse import FuseError, fx_fuse, refold
from tests.checkpoints.models import made
from tests.checkpoints.test_refold import assert_identical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRAPPERS: dict[str, tuple[Callable[[nn.Module], Any], str, str]] = {
    "DataParallel": (nn.DataParallel, "module.", "module"),
    "an average": (AveragedModel, "module.", "module"),
    "torch.compile": (functools.partial(torch.compile, backend="eager"), "_orig_mod.", "_orig_mod"),
    "a module of the user's": (lambda model: nn.ModuleDict({"model": model}), "model.", "model"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_weights_of_what_wraps_the_model(name: str) -> None:
    wrap, prefix, attribute = WRAPPERS[name]
    retrained = made("chain", 1)
    fused, again = fx_fuse(made("chain", 0)), fx_fuse(retrained)
    wrapped = wrap(retrained)
    with pytest.raises(FuseError, match=rf"The names begin with '{prefix}'"):
        refold(fused, wrapped)
    assert_identical(refold(fused, wrapped.get_submodule(attribute)), again)
    stripped = {n.removeprefix(prefix): t for n, t in wrapped.state_dict().items() if n.startswith(prefix)}
    assert_identical(refold(fused, stripped), again)


def test_a_model_that_timm_fills_from_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")

    def model(**options: Any) -> nn.Module:
        created: nn.Module = timm.create_model("lcnet_050", num_classes=2, **options)
        return created.eval()

    retrained = model()
    torch.save(retrained.state_dict(), tmp_path / "weights.pth")
    loaded = model(checkpoint_path=str(tmp_path / "weights.pth"))
    assert_identical(refold(fx_fuse(model()), loaded), fx_fuse(retrained))
