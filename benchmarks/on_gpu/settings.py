"""What is measured, and how much of it: on a GPU, or in seconds to see that the command runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_EQUALITY: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "square": {"steps": 300},
        "few_pixel": {"steps": 200},
        "carlini_wagner": {"steps": 100, "search_steps": 4},
        "lbfgs": {"search_steps": 4},
    }
)
"""Keywords of the attacks that are compared between devices, where their own would take minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes of a run."""

    dataset: str = "cifar10"
    model: str = "resnet18"
    batch_size: int = 500
    """Divides CIFAR-10's 50,000 rows, so that torch.compile meets one shape."""
    learning_rate: float = 0.4
    """The reproduction's 0.1 at 128 images a step, scaled with the batch."""
    train_images: int | None = None
    """None: all of them."""
    epochs: int = 16
    """At most; fewer where they do not fit."""
    adversarial_epochs: int = 8
    target_accuracy: float = 0.9359
    """Clean accuracy that document A publishes for its undefended baseline (A0)."""
    probe_steps: int = 20
    probe_epochs: int = 4
    """The first of them warms up and is not counted."""
    compiler: str = "inductor"
    """Backend of torch.compile."""
    attacked_points: int = 1000
    pgd_points: int = 512
    compared_points: int = 128
    """Points of the comparison of AutoAttacks; fewer where the checkpoint is slow."""
    autoattack_radius: float = 1.0
    """Multiple of the data set's radius at which AutoAttack runs: four times it leaves nothing to
    any part except the first, which takes seconds on a CPU and not minutes."""
    repeats: int = 5
    certified_images: int = 16
    certificate_draws: int = 10_000
    memory_batch: int = 2048
    equality_points: int = 64
    equality_autoattack_points: int = 16
    equality_epochs: int = 15
    equality: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _EQUALITY)
    shares: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {
                "A0": 0.28,
                "A1": 0.32,
                "attacks": 0.17,
                "certify": 0.03,
                "memory": 0.02,
                "equality": 0.15,
            }
        )
    )
    """Share of the time that each part may take; what one leaves is left to those after it."""


FULL = Settings()
TINY = Settings(
    dataset="digits",
    model="small_cnn",
    batch_size=64,
    learning_rate=0.05,
    train_images=320,
    epochs=2,
    adversarial_epochs=2,
    probe_steps=2,
    probe_epochs=2,
    compiler="eager",
    attacked_points=16,
    pgd_points=64,
    compared_points=16,
    autoattack_radius=4.0,
    repeats=2,
    certified_images=2,
    certificate_draws=500,
    memory_batch=64,
    equality_autoattack_points=4,
    equality_epochs=4,
    equality={
        "square": {"steps": 50},
        "few_pixel": {"steps": 50},
        "hop_skip_jump": {"steps": 2, "draws": 20},
        "carlini_wagner": {"steps": 20, "search_steps": 3},
        "lbfgs": {"steps": 10, "search_steps": 2},
        "random_noise": {"draws": 20},
    },
)
"""Digits and a small net: it shows that the command runs, and measures nothing of a GPU."""
