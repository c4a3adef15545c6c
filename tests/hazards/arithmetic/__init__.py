"""Hazards 17 to 19: arithmetic with constants."""
