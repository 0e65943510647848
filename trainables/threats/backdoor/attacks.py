"""The attacks of an audit: what each changes in the parameters of the threat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN = "own"
"""The attack that the threat's own parameters describe."""
ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "patch": {"trigger": "patch", "covers": None},
    "blend": {"trigger": "blend", "covers": None},
    "cover": {"trigger": "patch", "covers": 3.0},
    "adaptive_blend": {"trigger": "adaptive_blend", "covers": None},
    "wanet": {"trigger": "wanet", "covers": None},
    "sig": {"trigger": "sig", "covers": None},
}
"""Name -> the parameters that it sets; all of them change labels. cover: TaCT (Tang et al., 2021),
whose patch alone no longer separates the poison: three stamped rows of other classes keep their
labels for each poisoned one."""
AUDITED = ("patch", "blend", "cover")
"""What an audit runs whatever the stack; what was made against a defense of it runs as well."""
AUDITED_PAIRS = 4
WORST = 2
"""Attacks that the further seeds of an audit repeat: those that succeeded most on the first."""
