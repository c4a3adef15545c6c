"""Tests on models that other people wrote."""
