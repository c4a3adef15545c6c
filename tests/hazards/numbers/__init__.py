"""Hazards 26 to 28: rounding, overflow, dtypes and devices."""
