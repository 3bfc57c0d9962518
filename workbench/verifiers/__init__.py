"""Verifiers: one file per rule; each turns target laws and a tree into a law over outcomes."""
