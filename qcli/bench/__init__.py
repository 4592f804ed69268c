"""What `qcli bench` measures: tests as llama-bench names them, over a file or over random weights, beside a peer."""
