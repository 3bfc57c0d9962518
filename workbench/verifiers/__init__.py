"""Verifiers: one file per rule; each turns target laws and a draft tree into a law over outcomes."""
