"""What-if replay: a recorded run under another rule, temperature or budget, without any model."""
