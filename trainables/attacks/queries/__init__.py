"""Attacks that ask for answers and never for a gradient: by scores, or by labels alone."""
