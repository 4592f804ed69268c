"""Questions of many, answered in turn: the queue that `qcli batch` and `qcli serve` share, and the server."""
