"""Edited graphs become what the user gets: a GraphModule, the user's own classes, an exported program.

May import ``capture`` and what is above it. Start with ``into_modules`` of ``result.py``: ``replacements.py`` says
which module takes the place of which, ``copies.py`` makes the copies that hold them, and ``vetoes.py`` has refused
before what cannot be put there.
"""
