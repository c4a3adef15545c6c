"""One file for each group of hazards: every test breaks exactly one precondition of a fold."""
