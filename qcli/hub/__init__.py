"""Models that are published on huggingface.co, and what of them its library keeps on this machine."""
