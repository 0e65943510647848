"""What is wrong with a bundle."""

from results.errors import ResultsError


class BundleError(ResultsError):
    """A bundle is refused, or cannot be written: says what, where and how to mend it."""
