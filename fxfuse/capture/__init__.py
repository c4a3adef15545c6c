"""A model as graphs: one if it can be traced as a whole, else one for each part that can be.

May import ``rules`` and what is above it. Start with ``capture.py``.
"""
