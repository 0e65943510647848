"""What several attacks on several pairs amount to: the worst attack, by its mean over pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainables.metrics import intervals
from trainables.metrics.poisoning import success_metric
from trainables.records.record import metric_to_plain
from trainables.records.value import Measured
from trainables.threats.backdoor.twin import Count, PairFindings, TwinFindings

Twins = Sequence[TwinFindings]
"""Those of one attack, which have its pairs among them."""


def pairs_of(twins: Twins) -> list[PairFindings]:
    """List all pairs of an attack."""
    return [pair for twin in twins for pair in twin.pairs]


def mean_success(twins: Twins) -> float:
    """Return the mean over an attack's pairs of its success."""
    shares = [pair.triggered[0] / pair.triggered[1] for pair in pairs_of(twins)]
    return sum(shares) / len(shares)


def by_success(found: Mapping[str, Twins]) -> list[str]:
    """List the attacks from the highest to the lowest success; of a tie the first named first."""
    return sorted(found, key=lambda name: -mean_success(found[name]))


def summarized(found: Mapping[str, Twins]) -> dict[str, Measured]:
    """Return the metrics of attacks: the worst one's, and the success of each.

    The worst attack's success lies between the largest ends of all attacks' intervals, each at
    level 1 - 0.05 / number of attacks (Bonferroni): they hold together, whichever looked worst.
    """
    level = 1 - (1 - intervals.LEVEL) / len(found)
    together = [intervals.mean_of_shares(_triggered(twins), level) for twins in found.values()]
    worst = found[by_success(found)[0]]
    poison = [pair.removed for pair in pairs_of(worst)]
    return {
        "backdoor_success_rate": Measured(
            mean_success(worst),
            max(each.low for each in together),
            max(each.high for each in together),
            sum(n for _, n in _triggered(worst)),
        ),
        "untriggered_success_rate": _mean(pair.untriggered for pair in pairs_of(worst)),
        "poisoned_clean_accuracy": _mean(twin.clean for twin in worst),
        "poison_recall": _mean(poison),
        "clean_removal_rate": _mean(twin.clean_removed for twin in worst),
        **{
            success_metric(name): intervals.mean_of_shares(_triggered(twins))
            for name, twins in found.items()
        },
    }


def plain_attacks(found: Mapping[str, Twins]) -> list[dict[str, Any]]:
    """Return every attack with every pair as plain JSON, the worst attack first."""
    return [
        {
            "attack": name,
            "success": metric_to_plain(intervals.mean_of_shares(_triggered(found[name]))),
            "pairs": [
                {
                    "source": pair.source,
                    "target": pair.target,
                    "success": metric_to_plain(intervals.proportion(*pair.triggered)),
                    "untriggered": metric_to_plain(intervals.proportion(*pair.untriggered)),
                    "poison_recall": metric_to_plain(intervals.proportion(*pair.removed)),
                }
                for pair in pairs_of(found[name])
            ],
        }
        for name in by_success(found)
    ]


def _triggered(twins: Twins) -> list[Count]:
    return [pair.triggered for pair in pairs_of(twins)]


def _mean(counts: Iterable[Count]) -> Measured:
    return intervals.mean_of_shares(list(counts))
