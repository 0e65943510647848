"""What a record's notes say of the certificates of its model, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NORM = "l2"
"""The only norm that certificates are measured in: radii of two norms are never compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedCertificates:
    """What attacks inside their own radii did to the certified points. R points."""

    inside: float
    """Share of its radius within which each point was attacked."""
    refuted: tuple[bool, ...]
    """(R,) whether another class is surely likelier than the certified one there."""
    wavered: tuple[bool, ...]
    """(R,) whether the deployed model did not give the certified answer."""
    settling_draws: int | None
    """Draws of a vote that wavers there, at the median radius, with the certificate's failure
    probability at most; None where no formula is known."""

    def text(self) -> str:
        """Write what the attacks did in words."""
        words = (
            f"attacked at {self.inside:g} of its own radius, the certificate of "
            f"{sum(self.refuted)} of {len(self.refuted)} points was refuted, and the deployed "
            f"answer wavered on {sum(self.wavered)}"
        )
        if self.settling_draws is None:
            return words
        return (
            f"{words}; at the median radius a vote of {self.settling_draws:,} draws wavers no more "
            "often than a certificate fails"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationNotes:
    """What was proven of each point. N points."""

    radii: tuple[float, ...]
    """(N,) certified L2 radius in pixel units; 0 where nothing is proven."""
    right: tuple[bool, ...]
    """(N,) whether the certified class is the true one."""
    failure_probability: float | None
    """Highest probability that the certificate of one image is wrong; None where the model
    does not certify."""
    attacked: AttackedCertificates | None = None
    """None where no certified point was attacked inside its radius."""


def certification_notes(notes: Mapping[str, Any]) -> CertificationNotes | None:
    """Read the notes of a record; None where certificates were not measured.

    Where they have another shape, it raises as for any bad JSON.
    """
    plain = notes.get("certification")
    if plain is None:
        return None
    radii, right = plain["radii"], plain["right"]
    if not isinstance(radii, list) or not isinstance(right, list) or len(radii) != len(right):
        raise ValueError("its notes hold no radius and no verdict for each certified point")
    if not all(isinstance(each, bool) for each in right):
        raise ValueError("its notes say of a certified class neither that it is right nor wrong")
    numbers = tuple(float(radius) for radius in radii)
    if not all(math.isfinite(radius) and radius >= 0 for radius in numbers):
        raise ValueError("its notes hold a certified radius that is negative or not finite")
    if plain["norm"] != NORM:
        raise ValueError(f"its notes hold radii in the norm {plain['norm']!r}; known: {NORM}")
    failure = plain.get("failure_probability")
    return CertificationNotes(
        radii=numbers,
        right=tuple(right),
        failure_probability=None if failure is None else float(failure),
        attacked=_attacked(plain.get("attacked")),
    )


def _attacked(plain: Mapping[str, Any] | None) -> AttackedCertificates | None:
    if plain is None:
        return None
    refuted, wavered = (tuple(plain[name]) for name in ("refuted", "wavered"))
    both = (*refuted, *wavered)
    if len(refuted) != len(wavered) or not all(isinstance(each, bool) for each in both):
        raise ValueError("its notes do not say for each attacked certificate what became of it")
    settling = plain.get("settling")
    return AttackedCertificates(
        inside=float(plain["inside"]),
        refuted=refuted,
        wavered=wavered,
        settling_draws=None if settling is None else int(settling["draws"]),
    )
