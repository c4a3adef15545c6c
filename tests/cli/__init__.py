"""Tests of the command line, of the benchmark and of the page."""
