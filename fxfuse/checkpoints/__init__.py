"""New weights for a fused model: the plan that makes them of those of the original, and how it is used.

May import ``algebra`` and ``report``. Start with ``plan.py``.
"""
