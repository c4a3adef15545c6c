"""No other error comes out than a ``FuseError``."""

from __future__ import annotations

import pytest
import torch

from fxfuse import FuseError
from fxfuse.pipeline.entry import as_fuse_errors


def test_code_of_others_that_raises_is_named() -> None:
    def affine() -> None:
        torch.zeros(2).view(3)

    inside = {"__name__": "fxfuse.somewhere", "affine": affine}
    with pytest.raises(FuseError) as caught, as_fuse_errors("it failed"):
        exec("affine()", inside)  # noqa: S102 - as if fxfuse called it
    assert f"It was raised in affine ({__file__}, line " in str(caught.value)
    assert "fault of fxfuse" not in str(caught.value)


def test_other_errors_are_faults_of_fxfuse_and_memory_is_not() -> None:
    for error, told in (
        (KeyError("x"), "it failed (KeyError: 'x'); nothing was changed. This is a fault of fxfuse"),
        (MemoryError(), "it failed, since there is not enough memory (MemoryError); nothing was changed. Free some"),
        (FuseError("as it is"), "as it is"),
    ):
        with pytest.raises(FuseError) as caught, as_fuse_errors("it failed"):
            exec("raise error", {"__name__": "fxfuse.somewhere", "error": error})  # noqa: S102 - as if fxfuse did
        assert str(caught.value).startswith(told)
