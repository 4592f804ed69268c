"""What architectures are built of: hyperparameters, weights, layers and their state."""
