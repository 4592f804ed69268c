"""Trials of compiled kernels, a file for each family: small random data, and how far results are from the twins'."""
