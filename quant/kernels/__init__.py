"""Kernels: each file holds the compiled functions of one operation and the function that puts them into a plan."""
