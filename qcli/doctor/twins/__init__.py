"""Plain twins of compiled kernels: what each should compute, in a few lines of NumPy, float64 where sums are long."""
