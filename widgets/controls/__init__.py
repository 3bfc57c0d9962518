"""Forms: one neutral description of knobs and a renderer per host."""
