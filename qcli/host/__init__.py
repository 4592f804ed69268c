"""The machine: its memory and threads, mapped files that fail, output files that appear whole or not at all."""
