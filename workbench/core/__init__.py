"""Values and contracts: what a method, a tree, a law, a round and a trace are. No model here."""
