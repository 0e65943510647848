"""Evasion: attacks within a ball, over the radius, and whether they can be believed."""
