"""One trial: its spec, the context that defenses and threats ask, its stages and its limits."""
