"""Conformance suites, toy models with exact laws, slow references and the saboteurs they catch."""
