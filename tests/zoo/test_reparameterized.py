"""Models whose authors make their branches one by code of their own: here it is done from the graph, and no worse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxfuse import fx_fuse
from fxfuse.cli.models import randomize
from fxfuse.modules.kernels import Kernels
from tests.zoo.checks import error

timm: Any = pytest.importorskip("timm")

# One model for each family of timm that has such code, and whether that leaves norms.
FAMILIES = {
    "repvgg_a0": False,
    "mobileone_s1": False,
    "fastvit_t8": True,
    "repvit_m0_9": False,
    "repghostnet_100": True,
    "ghostnetv3_100": True,
    "lcnetv2_base": True,
    "nextvit_small": True,
    "efficientvit_m0": False,
    "levit_128s": False,
    "tiny_vit_5m_224": False,
    "shvit_s1": False,
    "iformer_h": False,
    "efficientvim_m1": False,
}


def made(name: str) -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    randomize(model)
    return model, torch.randn(1, *model.default_cfg["input_size"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize("name", FAMILIES)
def test_no_more_kernels_than_by_hand(name: str) -> None:
    model, x = made(name)
    by_hand = timm.utils.model.reparameterize_model(model).double()  # its code is of float32 alone
    model, x = model.double(), x.double()
    with torch.no_grad():
        expected = model(x)
    fused = fx_fuse(model)
    with torch.no_grad():
        assert error(expected, fused(x)) <= 1e-12
    theirs, ours = Kernels.of(by_hand, x), Kernels.of(fused, x)
    assert all(mine <= other for mine, other in zip(ours, theirs, strict=True))
    assert ours[1] == 0
    assert (theirs[1] > 0) == FAMILIES[name]
    assert ours[2] < theirs[2] or not FAMILIES[name]


# Public methods of these use some layers by themselves, so that more of them stay where the class does: convolutions,
# norms and kernels in all.
MORE_IN_THE_CLASS = {"fastvit_t8": [1, 0, 2], "repghostnet_100": [0, 1, 1]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(deprecated|Overwriting)")
@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s1", "fastvit_t8", "repghostnet_100", "lcnetv2_base"])
def test_as_many_in_an_exported_program_and_in_the_class(name: str) -> None:
    model, x = made(name)
    model, x = model.double(), x.double()
    with torch.no_grad():
        expected = model(x)
    program = fx_fuse(torch.export.export(model, (x,))).module()
    kept = fx_fuse(model, structure="module")
    assert isinstance(kept, type(model))
    with torch.no_grad():
        assert max(error(expected, program(x)), error(expected, kept(x))) <= 1e-12
    left = Kernels.of(fx_fuse(model), x)
    assert Kernels.of(program, x) == left
    assert [a - b for a, b in zip(Kernels.of(kept, x), left, strict=True)] == MORE_IN_THE_CLASS.get(name, [0, 0, 0])
