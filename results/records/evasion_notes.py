"""What a record's notes say of how its model was attacked, read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNATTACKED = "clean"
"""Stands for an attack's name where a point is wrong, or rejected, without any attack."""
WITHSTOOD = "none"
"""Stands for an attack's name where no attack breaks the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How surely the masking check would have seen a mask: the power of its weakest sign."""

    mask: float
    """Share of the points that the mask holds."""
    probability: float
    n: int
    """Points of the sign."""
    enough: float
    """Probability from which it says something that no sign shows."""
    points_needed: int
    """Points from which the probability is enough."""

    @property
    def suffices(self) -> bool:
        """Whether the probability is enough."""
        return self.probability >= self.enough

    def text(self) -> str:
        """Write it in words."""
        return (
            f"a mask of {100 * self.mask:g} % of the points would be seen with probability "
            f"{self.probability:.2f} (n = {self.n:,})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvasionNotes:
    """How a model was attacked, and whether its robust accuracy can be trusted.

    A record that was written before these notes existed has none of them.
    """

    suspected: bool | None = None
    """Whether the masking check failed; None where it did not run."""
    strikes: bool = True
    """Whether what failed makes the robust accuracy untrustworthy; a failed check does unless
    it says otherwise."""
    masking: str = ""
    """What the masking check found, in words."""
    sight: Sight | None = None
    """How large a mask would have been seen; None where it is not recorded."""
    adaptive: bool | None = None
    """Whether the attack knew the whole defense; None where it is not recorded."""
    not_adaptive_because: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    """What was differentiated, each in words."""
    detector_aware: bool = False
    """Whether an attack could aim at being accepted as well."""
    stochastic: bool = False
    undeclared_randomness: bool = False
    rejects: bool | None = None
    """Whether the deployed model may reject an image; None where it is not recorded."""
    radius_l2: float | None = None
    """L2 radius of robust_accuracy_l2, in pixel units; None where it is not recorded."""
    broken_by: Mapping[str, int] = field(default_factory=dict)
    """Attack -> points that it was the first to break, within the standard Linf ball; also
    UNATTACKED and WITHSTOOD."""


def evasion_notes(notes: Mapping[str, Any]) -> EvasionNotes:
    """Read the notes of a record; where they have another shape, raise as for any bad JSON."""
    plain = notes.get("evasion") or {}
    check = plain.get("masking") or {}
    surfaces = plain.get("surfaces") or []
    return EvasionNotes(
        suspected=_truth(check, "suspected"),
        strikes=_truth(check, "strikes") is not False,
        masking=str(check.get("words") or ""),
        sight=_sight(check.get("sight")),
        adaptive=_truth(plain, "adaptive"),
        not_adaptive_because=_texts(plain, "not_adaptive_because"),
        surfaces=tuple(dict.fromkeys(_surface(surface) for surface in surfaces)),
        detector_aware=any(_truth(surface, "detector_aware") for surface in surfaces),
        stochastic=bool(_truth(plain, "stochastic")),
        undeclared_randomness=bool(_truth(plain, "undeclared_randomness")),
        rejects=_truth(plain, "rejects"),
        radius_l2=None if plain.get("radius_l2") is None else float(plain["radius_l2"]),
        broken_by=dict(Counter(_texts(plain, "broken_by"))),
    )


def _sight(plain: Mapping[str, Any] | None) -> Sight | None:
    if plain is None:
        return None
    return Sight(
        mask=float(plain["mask"]),
        probability=float(plain["probability"]),
        n=int(plain["n"]),
        enough=float(plain["enough"]),
        points_needed=int(plain["points_needed"]),
    )


def _surface(surface: Mapping[str, Any]) -> str:
    draws = int(surface.get("draws", 1))
    parts = [str(surface["kind"])]
    if draws > 1:
        parts.append(f"{draws} draws")
    if surface.get("detector_aware"):
        parts.append("detector-aware")
    return ", ".join(parts)


def _truth(plain: Mapping[str, Any], name: str) -> bool | None:
    value = plain.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"its notes say {name} is {value!r}, which is neither true nor false")
    return value


def _texts(plain: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = plain.get(name) or []
    # An attack is named for each point: asked of each, thousands of records take seconds.
    if not isinstance(values, list) or not set(map(type, values)) <= {str}:
        raise ValueError(f"its notes say {name} is not a list of texts")
    return tuple(values)
