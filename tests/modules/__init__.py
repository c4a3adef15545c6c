"""Tests of what is done with modules, and of what is read of their code."""
