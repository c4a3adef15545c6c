"""Tests of what is left when something raises in the middle of a pass."""
