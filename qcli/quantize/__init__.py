"""Making quantized files from float ones: `mixes` says which type a tensor gets, `job` plans a file, `work` writes it."""
