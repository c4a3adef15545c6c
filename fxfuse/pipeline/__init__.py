"""One pass from beginning to end: check the arguments, capture, run the rules, write back.

May import everything but ``lowering``, ``frontends`` and ``cli``. Start with ``run.py``: ``fuse`` decides whether a
model is watched on the example inputs; the rules are tried in ``engine.py``.
"""
