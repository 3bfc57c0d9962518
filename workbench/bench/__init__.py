"""Measurements: peers on the same checkpoint, prompts and machine."""
