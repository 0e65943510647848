"""One file a threat: how a deployed model is measured."""

from trainables.threats.registry import THREATS, build_threat
from trainables.threats.threat import Findings, Threat

__all__ = ["THREATS", "Findings", "Threat", "build_threat"]
