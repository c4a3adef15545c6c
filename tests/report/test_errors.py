"""Errors in a sentence."""

from __future__ import annotations

import pytest

from fxfuse.report.errors import LONGEST, FuseError, as_fuse_errors, sentence


def test_a_long_message_ends_at_a_word() -> None:
    long = "abcdefghi " * 40
    told = sentence(ValueError(long + "\nsecond line"))
    assert told.startswith("ValueError: abcdefghi abcdefghi")
    assert told.endswith(" abcdefghi ...")
    assert len(told) <= len("ValueError: ") + LONGEST + len(" ...")
    assert sentence(ValueError(long[:LONGEST])) == f"ValueError: {long[:LONGEST].strip()}"
    assert sentence(ValueError()) == "ValueError"


def test_other_errors_are_faults_of_fxfuse_and_memory_is_not() -> None:
    for error, told in (
        (KeyError("x"), "it failed (KeyError: 'x'); nothing was changed. This is a fault of fxfuse"),
        (MemoryError(), "it failed, since there is not enough memory (MemoryError); nothing was changed. Free some"),
        (FuseError("as it is"), "as it is"),
    ):
        with pytest.raises(FuseError) as caught, as_fuse_errors("it failed"):
            raise error
        assert str(caught.value).startswith(told)
