"""Making quantized files of float ones: `mixes` as llama.cpp has them, `tensor_types` and `job` decide, `convert` writes."""
