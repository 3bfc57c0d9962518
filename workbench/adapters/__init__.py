"""Adapters: small trained changes of a model, on Hugging Face peft; one file per method."""
