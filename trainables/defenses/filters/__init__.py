"""Defenses that leave rows of the training data out."""
