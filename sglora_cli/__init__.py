"""sglora makes a LoRA adapter for a vision-language model from one sentence. See `sglora_cli.api`."""

__version__ = "0.1.0"
