"""Schedules: one file per order of drafting and verifying; each yields the rounds of a run."""
