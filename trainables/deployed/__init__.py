"""The deployed model: what it answers, what it fits to data, and how its passes are averaged."""
