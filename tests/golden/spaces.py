"""Golden identities of trials: the first stacks and drawn specs of every shipped space."""

from collections.abc import Iterator
from typing import Any

import optuna
from optuna.samplers import RandomSampler

from search_spaces import Overrides, Space, load_space
from search_spaces.loader import available
from trainables.storage.identity import identity_hash

DRAWS = 20
_SEED = 0


def shipped() -> Iterator[tuple[str, Space]]:
    """Yield every shipped space, a reproduction once for each of its budgets."""
    for name in available():
        budgets = load_space(name).file.budgets
        for budget in budgets or (None,):
            shown = name if budget is None else f"{name} --budget {budget}"
            yield shown, load_space(name, Overrides(budget=budget))


def identities() -> dict[str, Any]:
    """Compute the golden content of every shipped space."""
    return {name: _of(space) for name, space in shipped()}


def trial_row(space: Space, flat: dict[str, Any]) -> dict[str, Any]:
    """Return a draw and the identity of the trial that it stands for."""
    return {"trial": space.spec(flat).trial, "flat": flat}


def _of(space: Space) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed=_SEED))
    drawn = [trial_row(space, space.suggest(study.ask())) for _ in range(DRAWS)]
    distinct = {row["trial"]: row for row in drawn}
    return {
        "space": identity_hash(space.canonical()),
        "first": [trial_row(space, flat) for flat in space.first_draws()],
        "drawn": list(distinct.values()),
    }
