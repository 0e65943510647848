"""Which attacks an effort always runs, and with which settings."""

from collections.abc import Mapping

from trainables.threats.attacking import Settings, Target

CORE: Mapping[str, tuple[str, ...]] = {
    "screen": (
        "fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd", "random_noise",
        "pgd_l2", "targeted_margin_pgd_l2", "deepfool",
    ),
    "audit": (
        "fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd", "random_noise", "transfer", "square",
        "autoattack",
        "pgd_l2", "targeted_margin_pgd_l2", "deepfool", "carlini_wagner", "autoattack_l2",
    ),
}  # fmt: skip
"""Effort -> the attacks that no user has to ask for."""
_NOT_ON_RANDOM = {
    "screen": {"targeted_margin_pgd", "targeted_margin_pgd_l2", "deepfool"},
    "audit": {"deepfool", "carlini_wagner"},
}
"""A minimum-norm attack looks for a border, which a random model does not have; at screen effort
averaged gradients leave no time for a run per target class."""
_SETTINGS: Mapping[str, Settings] = {
    "screen": {
        "bim": {"steps": 20},
        "pgd": {"steps": 20},
        "pgd_dlr": {"steps": 20},
        "targeted_margin_pgd": {"steps": 20, "targets": 3},
        "detector_aware_pgd": {"steps": 40},
        "random_noise": {"draws": 30},
        "transfer": {"steps": 20},
        "square": {"steps": 500},
        "few_pixel": {"steps": 200},
        "pgd_l2": {"steps": 20},
        "targeted_margin_pgd_l2": {"steps": 20, "targets": 3},
        "square_l2": {"steps": 500},
        "carlini_wagner": {"steps": 100, "search_steps": 5},
    },
    "audit": {
        "bim": {"steps": 100},
        "pgd": {"steps": 100, "restarts": 5},
        "pgd_dlr": {"steps": 100, "restarts": 5},
        "targeted_margin_pgd": {"steps": 100, "targets": 9},
        "detector_aware_pgd": {"steps": 200},
        "random_noise": {"draws": 1000},
        "transfer": {"steps": 100},
        "square": {"steps": 5000},
        "few_pixel": {"steps": 2000},
        "pgd_l2": {"steps": 100, "restarts": 5},
        "targeted_margin_pgd_l2": {"steps": 100, "targets": 9},
        "square_l2": {"steps": 5000},
        "carlini_wagner": {"steps": 1000, "search_steps": 9},
    },
}
"""Effort -> attack -> its settings; what is not named runs with the attack's own defaults."""
_ON_RANDOM: Mapping[str, Settings] = {
    "screen": {"random_noise": {"draws": 20}},
    "audit": {
        "pgd": {"steps": 100},
        "pgd_dlr": {"steps": 100},
        "targeted_margin_pgd": {"steps": 50, "targets": 3},
        "random_noise": {"draws": 200},
        "pgd_l2": {"steps": 100},
        "targeted_margin_pgd_l2": {"steps": 50, "targets": 3},
    },
}
"""Instead, for a random model: its gradients cost as many passes as they average."""
_MANY_PASSES = 100
_ON_VOTES: Mapping[str, Settings] = {
    "screen": {"random_noise": {"draws": 5}},
    "audit": {"random_noise": {"draws": 50}, "square": {"steps": 1000}},
}
"""Instead, where each answer that an attack asks for takes a hundred passes or more."""


def core_attacks(effort: str, target: Target) -> tuple[str, ...]:
    """Give the attacks that the effort runs on such a predictor, in order."""
    names = CORE[effort]
    if target.stochastic:
        names = tuple(name for name in names if name not in _NOT_ON_RANDOM[effort])
    return (*names, "detector_aware_pgd") if target.predictor.rejects else names


def settings_of(effort: str, target: Target) -> Settings:
    """Give the attacks' settings at an effort on such a predictor."""
    found = {**_SETTINGS[effort], **(_ON_RANDOM[effort] if target.stochastic else {})}
    votes = target.predictor.forward_passes_per_prediction >= _MANY_PASSES
    return {**found, **(_ON_VOTES[effort] if votes else {})}
