"""One pass from beginning to end: check the arguments, capture, run the rules, write back.

May import everything but ``lowering``, ``frontends`` and ``cli``. Start with ``run.py``; the rules are tried in ``engine.py``.
"""
