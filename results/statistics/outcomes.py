"""What became of each point, as arrays.

Axes: K records (seeds), N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from results.records.record import Record

Floats = NDArray[np.float64]


def outcome_matrix(records: Sequence[Record], metric: str) -> Floats | None:
    """Return the outcomes (K, N) of a metric, 1 where the point is right.

    None where a record holds none, or where they are of other points: of another number of them,
    data set, effort or pools.
    """
    marks = [record.outcomes.get(metric, "") for record in records]
    if not marks or not marks[0] or len({len(each) for each in marks}) > 1:
        return None
    if len({_points_of(record) for record in records}) > 1:
        return None
    return np.stack(
        [np.frombuffer(each.encode(), dtype=np.uint8) - ord("0") for each in marks]
    ).astype(np.float64)


def _points_of(record: Record) -> str:
    """Return what the fixed points follow from."""
    return repr((sorted((record.spec.get("data") or {}).items()), record.spec.get("effort")))
