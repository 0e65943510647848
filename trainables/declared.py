"""Words in which a user declares what nobody could find out."""

NOTHING = "nothing"
"""Given weights were trained on none of a data set's images."""
