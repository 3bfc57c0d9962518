"""Training: one file per recipe; heads and drafts are trained on the target's own outputs."""
