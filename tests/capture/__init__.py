"""Tests of the tracing of a model."""
