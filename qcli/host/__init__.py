"""The machine: memory, threads, mapped files, files written whole or not at all."""
