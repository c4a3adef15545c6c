"""Folds that rest on a run, and what checks them whenever the model runs."""
