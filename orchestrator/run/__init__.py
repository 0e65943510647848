"""One run on disk or in a store: its paths, its manifest, and who is at it."""
