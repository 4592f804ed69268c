"""The machine: its memory and threads, mapped files that fail, output files that appear or grow whole or not at all."""
