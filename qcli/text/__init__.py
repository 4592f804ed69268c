"""Text to token ids and back: tokenizers, chat templates, thoughts apart from answers."""
