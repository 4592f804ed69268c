"""Models larger than memory: dense weights stay in it, routed experts are read when tokens choose them and kept in a cache.

`budget` decides sizes, `ExpertLoader` is what a plan calls, `ExpertCache` has a `CachedLayer` of `Slots` for each layer of
experts, `DecodeLoads` and `PrefillLoads` decide what is read, `Reader` reads.
"""
