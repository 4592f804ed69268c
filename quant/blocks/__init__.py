"""What formats share: layouts of blocks of 32 and of 256, and how packed numbers are taken apart."""
