"""Defenses that repair a trained network on clean rows."""
