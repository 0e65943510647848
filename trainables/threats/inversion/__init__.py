"""Model inversion: images of a class, climbed out of the model."""
