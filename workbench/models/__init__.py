"""The only place that knows transformers: loading, anatomy, the session and its cache."""
