"""A model as graphs: one if it can be traced as a whole, else one for each part that can be.

May import ``source`` and what is above it. Start with ``capture.py``.
"""
