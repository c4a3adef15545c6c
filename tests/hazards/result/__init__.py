"""Hazards 29 to 32: the argument, and the object that comes back."""
