"""The loop, live runs, the measured baseline and replay of recorded rounds."""
