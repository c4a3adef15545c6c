"""``nn.Module`` objects: look things up, run them, put them back, derive classes from theirs.

May import ``report`` and ``algebra``. Start with ``lookup.py``.
"""
