"""The audit read back: who is verified, how candidates differ, and how the search flattered them."""
