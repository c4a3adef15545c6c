"""Tests of the report, and of every reason."""
