"""Hazards 1 to 5: modules, parameters and values that are used more than once."""
