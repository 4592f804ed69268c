"""What quantizers share: searches for scales and for grid points, weights of columns, packing; sixteen blocks at once."""
