"""What `qcli doctor` examines: the machine, the programs, the kernels, and a model; each check tells what it found."""
