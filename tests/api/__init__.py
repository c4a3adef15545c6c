"""Tests of the public functions: their arguments, their names, and rules of the user's."""
