"""Tests that need a GPU; they are skipped where there is none."""
