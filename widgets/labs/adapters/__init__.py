"""The adapter lab: train, weigh, compare and combine adapters on one model."""
