"""A loaded model: the engine, its prefix cache, the sampler, and the loop that generates."""
