"""Upper bounds on how much a network stretches distances, and how they are kept."""
