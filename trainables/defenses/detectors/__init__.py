"""Defenses that refuse to answer where an image looks attacked."""
