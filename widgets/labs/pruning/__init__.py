"""The pruning lab: masks painted and computed, and what they do to loss and speculation."""
