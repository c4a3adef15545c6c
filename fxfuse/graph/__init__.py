"""A graph, read-only: constants, ranks, sizes, memory, calls and plans.

May import ``report``, ``algebra`` and ``modules``. Start with ``graph.py``, which is all that a rule sees.
"""
