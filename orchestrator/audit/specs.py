"""What an audit measures of a candidate: everything on its first seed, on the others what counts.

A second seed shows how far a figure depends on chance. It need not pay for reference models, signs
of masking and reconstructions again.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from trainables.threats import Threat
from trainables.threats.backdoor.attacks import AUDITED, AUDITED_PAIRS, OWN
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.certification import Certification
from trainables.threats.evasion.evasion import HEADLINE, Evasion
from trainables.threats.membership.membership import CHEAP, OF_SHADOWS, Membership
from trainables.trial.spec import TrialSpec

FIRST_SEED = 1001
"""Far from what searches take, which begin at 0."""
SHADOWS_ON_CPU = 8
_ON_EVERY_SEED = {"evasion", "certification", "membership", "backdoor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What an audit keeps to when it is completed later, on whatever machine."""

    shadows: int | None
    """Reference models of the first seed; None: the threat's own number."""
    points: int | None
    """Most points that are attacked and certified; None: the effort's own."""


def fresh_seeds(number: int, taken: Collection[int]) -> list[int]:
    """Return so many seeds that the search did not train with; a larger number adds to them."""
    return list(islice((seed for seed in count(FIRST_SEED) if seed not in taken), number))


def audit_specs(
    spec: TrialSpec, seeds: Sequence[int], needed: Collection[str], settings: AuditSettings
) -> tuple[TrialSpec, ...]:
    """Return the trials that audit a spec, one a seed; the first measures everything.

    `needed` are the metrics of the objectives and constraints, which every seed measures. The data
    and the training are the search's, `train_images` included: of more rows a network learns less
    by heart, and what was searched would not be what is audited. `changes` lists what differs.
    """
    spec = replace(spec, data=replace(spec.data, measured_images=None))
    whole = tuple(_whole(threat, settings) for threat in spec.threats)
    fewer = tuple(_restricted(whole, needed, seeds[0]))
    return tuple(
        replace(spec, effort="audit", seed=seed, threats=fewer if number else whole)
        for number, seed in enumerate(seeds)
    )


def changes(spec: TrialSpec, settings: AuditSettings) -> tuple[str, ...]:
    """Return in words what an audit changes of a search's spec, other than its effort, and why."""
    found = []
    if spec.data.measured_images is not None:
        found.append(
            f"it measures on all test images instead of {spec.data.measured_images:,} "
            "(measured_images): the model stays the same, and the intervals are narrower"
        )
    number = "an audit's own number of" if settings.points is None else f"{settings.points:,}"
    for threat in spec.threats:
        points = threat.points if isinstance(threat, Evasion | Certification) else None
        if points is not None and points != settings.points:
            found.append(
                f"{threat.name} takes {number} points instead of {points:,}, which is the number "
                "for a screen"
            )
    return tuple(found)


def _whole(threat: Threat, settings: AuditSettings) -> Threat:
    """Return a threat as the first seed meets it: the search's own number of points is not kept."""
    if isinstance(threat, Evasion | Certification):
        return replace(threat, points=settings.points)
    if isinstance(threat, Membership) and threat.shadows is None:
        with_shadows = threat.attacks is None or not set(threat.attacks).isdisjoint(OF_SHADOWS)
        return replace(threat, shadows=settings.shadows) if with_shadows else threat
    if isinstance(threat, Backdoor):
        attacks = threat.attacks or (() if threat.is_plain_patch else (OWN,))
        return replace(
            threat,
            attacks=tuple(dict.fromkeys((*attacks, *AUDITED))),
            pairs=max(threat.pairs, AUDITED_PAIRS),
            pairs_seen=threat.pairs,
        )
    return threat


def _restricted(threats: Iterable[Threat], needed: Collection[str], first: int) -> Iterable[Threat]:
    for threat in threats:
        asked = set(threat.metric_names()).intersection(needed)
        fewer = _headline(threat, first)
        if not asked <= set(fewer.metric_names()):
            yield threat
        elif asked or threat.name in _ON_EVERY_SEED:
            yield fewer


def _headline(threat: Threat, first: int) -> Threat:
    if isinstance(threat, Backdoor):
        return replace(threat, worst_at=first)
    if isinstance(threat, Evasion):
        return replace(threat, extent=HEADLINE, attacks=None, eps=None, eps_l2=None)
    if isinstance(threat, Membership):
        cheap = tuple(name for name in threat.attacks or () if name in CHEAP)
        return replace(threat, attacks=cheap or None, shadows=0)
    return threat
