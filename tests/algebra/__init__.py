"""Tests of the arithmetic, without any graph."""
