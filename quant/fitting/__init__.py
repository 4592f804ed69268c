"""What quantizers share: searches for scales, packing, importance, and operations on sixteen blocks at once."""
