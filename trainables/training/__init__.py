"""Training a network: the loop, its checkpoints, and what is measured on the way."""
