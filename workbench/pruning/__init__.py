"""Pruning: which weights a model can do without; one file per method."""
