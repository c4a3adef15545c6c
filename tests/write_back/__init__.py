"""Tests of the result: written back into classes, saved and loaded."""
