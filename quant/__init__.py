"""Block formats and kernels: arrays in, arrays out."""
