"""What a trial leaves behind, and how its numbers are written: loads no torch."""
