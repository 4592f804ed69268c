"""GGUF files: reading their header, tensors and metadata; writing them."""
