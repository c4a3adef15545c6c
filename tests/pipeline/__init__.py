"""Tests of a whole pass: what goes beside the folds."""
