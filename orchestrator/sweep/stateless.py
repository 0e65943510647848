"""What is passed to Tune, which pickles it for a resume of its own that is never used here."""

from typing import Any


class Stateless:
    """Pickles as nothing: a sweep resumes from its records, and terminals and processes cannot be
    pickled.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}
