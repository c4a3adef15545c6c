"""Tests of the repository: documentation, layers, notebooks, scripts, and what is released."""
