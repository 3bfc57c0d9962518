"""The arena: methods against each other, what passes cost, other hardware, and tuning."""
