"""Detection: whether attacked images are recognized, and whether a detector can be believed."""
