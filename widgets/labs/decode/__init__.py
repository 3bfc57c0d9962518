"""The decode lab: watch one speculative run, round by round."""
