"""Models larger than memory: dense weights are read once, experts are read as they are routed to and kept while there is room."""
