"""No other error comes out than a ``FuseError``."""

from __future__ import annotations

import pytest

from fxfuse import FuseError
from fxfuse.pipeline.entry import as_fuse_errors


def test_other_errors_are_faults_of_fxfuse_and_memory_is_not() -> None:
    for error, told in (
        (KeyError("x"), "it failed (KeyError: 'x'); nothing was changed. This is a fault of fxfuse"),
        (MemoryError(), "it failed, since there is not enough memory (MemoryError); nothing was changed. Free some"),
        (FuseError("as it is"), "as it is"),
    ):
        with pytest.raises(FuseError) as caught, as_fuse_errors("it failed"):
            raise error
        assert str(caught.value).startswith(told)
