"""Hazards 24 and 25: branches that become one layer."""
