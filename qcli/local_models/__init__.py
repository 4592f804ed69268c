"""Models that are on this machine already: found in the folders of other tools and of the hub, read and never written to."""
