"""Python code of the user's, parsed and not run: which modules it calls, and how.

May import ``operators`` and what is above it. Start with ``reach.py``.
"""
