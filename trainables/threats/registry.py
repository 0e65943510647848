"""The threats by name."""

from collections.abc import Mapping
from typing import Any

from trainables.errors import InputError
from trainables.parameters import build
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.certification import Certification
from trainables.threats.cost import Cost
from trainables.threats.detection.detection import Detection
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.inversion.inversion import Inversion
from trainables.threats.membership.membership import Membership
from trainables.threats.threat import Threat

THREATS: Mapping[str, type[Threat]] = {
    "evasion": Evasion,
    "certification": Certification,
    "detection": Detection,
    "backdoor": Backdoor,
    "membership": Membership,
    "inversion": Inversion,
    "cost": Cost,
}


def build_threat(name: str, raw: Mapping[str, Any], *, radius: float) -> Threat:
    """Build a threat from what a user wrote; `radius` is the data set's standard one."""
    if name not in THREATS:
        raise InputError(f"unknown threat {name!r}; known: {', '.join(THREATS)}, or clean alone")
    return build(THREATS[name], raw, owner=name, radius=radius)
