"""Before a model is loaded, or even downloaded: what it takes of the memory, and how fast it will be."""
