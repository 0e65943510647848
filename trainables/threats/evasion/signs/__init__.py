"""Signs of masking that need arithmetic or attackers of their own: power, other attackers."""
