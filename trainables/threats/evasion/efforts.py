"""Which attacks an effort always runs, and with which settings."""

from collections.abc import Mapping

from trainables.attacks import variant
from trainables.threats.evasion.attacking import Settings
from trainables.threats.evasion.target import Target

CORE: Mapping[str, tuple[str, ...]] = {
    "screen": (
        "fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd", "random_noise",
        "pgd_l2", "targeted_margin_pgd_l2", "deepfool",
    ),
    "audit": (
        "fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd", "random_noise",
        "transfer", "transfer_undefended", "transfer_hardened", "square", "autoattack",
        "pgd_l2", "targeted_margin_pgd_l2", "deepfool", "carlini_wagner", "autoattack_l2",
    ),
}  # fmt: skip
"""Effort -> the attacks that no user has to ask for."""
_BESIDE_HEADLINE = {"transfer", "transfer_undefended", "transfer_hardened", "square"}
"""Linf attacks that an audit runs for its signs of masking: AutoAttack has a stronger Square of its
own, and a transfer broke nothing that it left."""
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
        "hop_skip_jump": {"steps": 5},
        "hop_skip_jump_l2": {"steps": 5},
        "carlini_wagner": {"steps": 100, "search_steps": 5},
    },
    "audit": {
        "bim": {"steps": 100},
        "pgd": {"steps": 100},
        "pgd_dlr": {"steps": 100},
        "targeted_margin_pgd": {"steps": 100, "targets": 3},
        "detector_aware_pgd": {"steps": 200},
        "random_noise": {"draws": 200},
        "transfer": {"steps": 100},
        "transfer_undefended": {"steps": 100},
        "transfer_hardened": {"steps": 100},
        "square": {"steps": 1000},
        "few_pixel": {"steps": 2000},
        "pgd_l2": {"steps": 100},
        "targeted_margin_pgd_l2": {"steps": 100, "targets": 9},
        "square_l2": {"steps": 5000},
        "hop_skip_jump": {"steps": 10},
        "hop_skip_jump_l2": {"steps": 10},
        "carlini_wagner": {
            "steps": 100, "search_steps": 3, "initial_const": 1.0, "step_size": 0.05,
        },
    },
}  # fmt: skip
"""Effort -> attack -> its settings; what is not named runs with the attack's own defaults.

An audit's strength is AutoAttack's; the others stand for themselves and for the signs of masking.
Measured on the digits' 270 test points, undefended and TRADES, broken in Linf: 217 and 46 by
AutoAttack; by no more than that by five restarts of PGD (212, 44), nine targets (217, 45) or 5,000
queries of Square (206, 44). In L2: 237 and 189 by AutoAttack, 237 and 183 by nine targets, 219 and
152 by 9 x 1000 steps of Carlini and Wagner's.
"""
_ON_RANDOM: Mapping[str, Settings] = {
    "screen": {"random_noise": {"draws": 20}},
    "audit": {
        "pgd": {"steps": 100},
        "pgd_dlr": {"steps": 100},
        "targeted_margin_pgd": {"steps": 50, "targets": 3},
        "random_noise": {"draws": 50},
        "square": {"steps": 300},
        "hop_skip_jump": {"steps": 3},
        "hop_skip_jump_l2": {"steps": 3},
        "pgd_l2": {"steps": 100},
        "targeted_margin_pgd_l2": {"steps": 50, "targets": 3},
    },
}
"""Instead, for a random model: its gradients and answers cost as many passes as they average."""
_ON_SURROGATES: Mapping[str, Settings] = {
    "screen": {
        "targeted_margin_pgd": {"steps": 100, "targets": 3},
        "targeted_margin_pgd_l2": {"steps": 100, "targets": 3},
    },
    "audit": {},
}
"""Instead, where a gradient is a surrogate's, which leads there by detours: of 120 digits behind
JPEG, 20 steps left 17 that 100 broke on an adversarially trained network, and 4 on a plain one."""
_VOTES_FROM = 100
"""Forward passes of an answer from which attacks ask less: a choice of cost alone."""
_ON_VOTES: Mapping[str, Settings] = {
    "screen": {"random_noise": {"draws": 5}},
    "audit": {
        "random_noise": {"draws": 10},
        "square": {"steps": 50},
        "hop_skip_jump": {"steps": 2, "draws": 10},
        "hop_skip_jump_l2": {"steps": 2, "draws": 10},
    },
}
"""Instead, where each answer that an attack asks for takes that many passes or more."""


def core_attacks(effort: str, target: Target) -> tuple[str, ...]:
    """Return the attacks that the effort runs on such a predictor, in order."""
    names = CORE[effort]
    if target.stochastic:
        names = tuple(name for name in names if name not in _NOT_ON_RANDOM[effort])
    return (*names, "detector_aware_pgd") if target.predictor.rejects else names


def headline_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of an effort's attacks that the robust accuracy in Linf takes."""
    return tuple(n for n in names if variant(n).norm == "linf" and n not in _BESIDE_HEADLINE)


def settings_of(effort: str, target: Target) -> Settings:
    """Return the attacks' settings at an effort on such a predictor."""
    surrogates = any(surface.kind == "bpda" for surface in target.surfaces)
    found = {**_SETTINGS[effort], **(_ON_SURROGATES[effort] if surrogates else {})}
    found |= _ON_RANDOM[effort] if target.stochastic else {}
    votes = target.predictor.forward_passes_per_prediction >= _VOTES_FROM
    return {**found, **(_ON_VOTES[effort] if votes else {})}
