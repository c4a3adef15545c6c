"""Hazards 33 to 36: what a forward asks, and code that no graph has."""
