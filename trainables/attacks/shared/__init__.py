"""What attacks share: the ascent, balls, losses, batches and searches."""
