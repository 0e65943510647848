"""Training a network: the loop, its checkpoints, and how a model is set up and measured on the way."""
