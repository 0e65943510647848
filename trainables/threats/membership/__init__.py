"""Membership inference: which rows the model was trained on."""
