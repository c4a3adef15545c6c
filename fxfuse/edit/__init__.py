"""The only code that changes a graph.

May import ``graph`` and what is above it. Start with ``editor.py``.
"""
