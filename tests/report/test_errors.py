"""Errors in a sentence."""

from __future__ import annotations

from fxfuse.report.errors import LONGEST, sentence


def test_a_long_message_ends_at_a_word() -> None:
    long = "abcdefghi " * 40
    told = sentence(ValueError(long + "\nsecond line"))
    assert told.startswith("ValueError: abcdefghi abcdefghi")
    assert told.endswith(" abcdefghi ...")
    assert len(told) <= len("ValueError: ") + LONGEST + len(" ...")
    assert sentence(ValueError(long[:LONGEST])) == f"ValueError: {long[:LONGEST].strip()}"
    assert sentence(ValueError("a" * 300)) == f"ValueError: {'a' * LONGEST} ..."
    assert sentence(ValueError()) == "ValueError"
