"""Hazards 6 to 9: the axis that a norm or a constant runs along."""
