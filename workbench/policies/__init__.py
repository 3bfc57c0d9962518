"""Length policies: one file per rule; each decides how much to draft in a round."""
