"""Networks that come trained: checkpoint files, and the architectures of other packages."""
