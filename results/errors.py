"""What a user of the results can mend."""


class ResultsError(ValueError):
    """What a user can mend: says what, where and how in one line."""
