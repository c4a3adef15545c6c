"""Tests of ``fxfuse export``."""
