"""The audit read back: who is verified, how candidates differ, what the search flattered."""
