"""What goes to a terminal and comes from one, or from a pipe in its place; `qcli.console` prints it."""
