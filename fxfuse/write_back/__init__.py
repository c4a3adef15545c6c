"""Edited graphs become what the user gets: a GraphModule, the user's own classes, an exported program.

May import ``capture`` and what is above it. Start with ``result.py``.
"""
