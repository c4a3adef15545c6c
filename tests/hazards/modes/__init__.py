"""Hazards 10 to 16: modes and variants of layers, hooks, and changes in place."""
