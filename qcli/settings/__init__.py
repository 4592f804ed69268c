"""What a user has set for good: declared once, read from the environment and from config.toml."""
