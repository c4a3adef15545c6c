"""Tests of the other doors: the compiler's backend, the pass of a pass manager, one pair, ``verify``."""
