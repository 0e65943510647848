"""The surrogate against a Gaussian process written out, and the search on planted effects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from orchestrator.search.effects import FEWEST_TO_FIT, Effects
from orchestrator.search.encoding import Encoding
from orchestrator.search.stacks import draw_stack, filled_slots
from orchestrator.search.surrogate import Kernel, Points, Surrogate
from search_spaces import Overrides, Space, load_space
from tests.search_spaces.writing import write_space

Floats = NDArray[np.float64]
PARTS = [np.array([], dtype=np.intp), np.array([0], dtype=np.intp), np.array([1], dtype=np.intp)]


def stacks(generator: np.random.Generator, count: int) -> Points:
    """Draw stacks of two possible parts besides the common one, with one setting each."""
    present = np.column_stack([np.ones(count), generator.integers(0, 2, (count, 2))])
    return Points(present.astype(float), present[:, 1:] * generator.random((count, 2)))


def test_the_kernel_adds_up_parts_and_pairs() -> None:
    generator = np.random.default_rng(0)
    a, b = stacks(generator, 6), stacks(generator, 5)
    kernel = Kernel(effect=2.0, pair=0.3, length=0.7, noise=0.1)
    found = kernel(a, b, PARTS)
    for i in range(6):
        for j in range(5):
            alike = [1.0] + [
                a.present[i, p] * b.present[j, p]
                * np.exp(-((a.settings[i, p - 1] - b.settings[j, p - 1]) ** 2) / (2 * 0.7**2))
                for p in (1, 2)
            ]  # fmt: skip
            pairs = alike[0] * alike[1] + alike[0] * alike[2] + alike[1] * alike[2]
            assert found[i, j] == pytest.approx(1 + 2 * (sum(alike) + 0.3 * pairs))


def test_predictions_are_those_of_the_textbook_formula() -> None:
    generator = np.random.default_rng(1)
    points, asked = stacks(generator, 12), stacks(generator, 4)
    values = 3 + 2 * generator.standard_normal(12)
    model = Surrogate(points, values, PARTS)
    k = model.kernel
    inverse = np.linalg.inv(k(points, points, PARTS) + k.noise * np.eye(12))
    cross = k(points, asked, PARTS)
    mean = values.mean() + cross.T @ inverse @ (values - values.mean())
    variance = np.diag(k(asked, asked, PARTS) - cross.T @ inverse @ cross) * values.var()
    found_mean, found_spread = model.predict(asked)
    assert found_mean == pytest.approx(mean)
    assert found_spread == pytest.approx(np.sqrt(variance), rel=1e-5)


def test_effects_of_single_parts_predict_the_stack_of_both() -> None:
    present = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]] * 4, dtype=float)
    values = present @ np.array([0.5, 2.0, -1.0])
    model = Surrogate(Points(present, np.zeros((12, 2))), values, PARTS)
    mean, spread = model.predict(Points(np.ones((1, 3)), np.zeros((1, 2))))
    assert mean[0] == pytest.approx(1.5, abs=0.3)
    alone = model.predict(Points(present[:2], np.zeros((2, 2))))[1]
    assert spread[0] > alone.max()  # nobody has tried it


def test_settings_lie_between_0_and_1_under_the_defense_that_has_them(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path)))
    encoding = Encoding(space)
    flats: list[dict[str, Any]] = [
        {"slot.labels": "label_smoothing", "label_smoothing.alpha": 0.3, "slot.deployment": "none"},
        {"slot.labels": "none", "slot.deployment": "temperature", "temperature.T": "fit"},
    ]
    points = encoding.points(flats)
    assert points.present.tolist() == [[1, 1, 0], [1, 0, 1]]
    alpha, kinds = encoding.parts[1], encoding.parts[2]
    assert (len(alpha), len(kinds)) == (1, 3)
    assert points.settings[0, alpha].tolist() == [1.0]
    assert points.settings[0, kinds].tolist() == [0, 0, 0]
    assert points.settings[1, kinds].tolist() == pytest.approx([0, 0, 0.5**0.5])


def planted(space: Space, flat: Mapping[str, object]) -> list[float]:
    """Return four objectives, in which three defenses help one each and most others hurt."""
    stack = {flat[f"slot.{slot}"] for slot in filled_slots(space, flat)}
    useful = {"pgd_adversarial_training", "spectral_signatures", "confidence_masking"}
    harm = 0.8 * len(stack - useful)
    return [
        float(expit(3.5 - harm)),
        float(expit(-1 + 2.5 * ("pgd_adversarial_training" in stack) - harm)),
        float(expit(3 - 5 * ("spectral_signatures" in stack))),
        float(expit(0.5 - 0.5 * ("confidence_masking" in stack))),
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_it_stacks_what_helps_alone(seed: int) -> None:
    space = load_space("full", Overrides(trials=42))
    study = optuna.create_study(directions=[o.direction for o in space.objectives])
    study.sampler = Effects(space, seed=seed)
    for flat in space.first_draws():
        study.enqueue_trial(flat)
    proposed = []
    for number in range(38):
        asked = study.ask()
        flat = space.suggest(asked)
        study.tell(asked, planted(space, flat))
        if number >= len(space.file.first):
            proposed.append({flat[f"slot.{slot}"] for slot in filled_slots(space, flat)})
    best = {"pgd_adversarial_training", "spectral_signatures", "confidence_masking"}
    assert any(best <= stack for stack in proposed)
    # At random one in some thousand stacks has them all.
    generator = np.random.default_rng(0)
    drawn = [draw_stack(space, generator) for _ in range(8)]
    assert not any(best <= {flat[f"slot.{s}"] for s in filled_slots(space, flat)} for flat in drawn)


def test_trials_that_break_a_constraint_are_avoided() -> None:
    space = load_space("full", Overrides(trials=60))
    study = optuna.create_study(directions=[o.direction for o in space.objectives])
    study.sampler = Effects(space, seed=0)
    for flat in space.first_draws():
        study.enqueue_trial(flat)
    hidden = []
    for _ in range(42):
        asked = study.ask()
        flat = space.suggest(asked)
        masks = flat["slot.training_batch"] == "pgd_adversarial_training"
        hidden.append(masks)
        asked.set_constraint("constraint0", float(masks))
        study.tell(asked, planted(space, flat))
    assert sum(hidden[len(space.file.first) :]) <= 4
    assert sum(hidden[: len(space.file.first)]) == 2


def test_a_small_space_is_gone_through_without_repeats(tmp_path: Path) -> None:
    finite = {"label_smoothing": {"alpha": [0.1, 0.2]}, "temperature": {"T": [1.5, 2]}}
    space = load_space(str(write_space(tmp_path, defenses=finite, max_stack=2)))
    study = optuna.create_study(directions=[o.direction for o in space.objectives])
    study.sampler = Effects(space, seed=0)
    generator = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(FEWEST_TO_FIT):
        _ask(space, study, seen, generator)
    for _ in range(9 - len(seen)):  # there are nine
        before = len(seen)
        _ask(space, study, seen, generator)
        assert len(seen) == before + 1
    _ask(space, study, seen, generator)
    assert len(seen) == 9


def _ask(space: Space, study: optuna.Study, seen: set[str], generator: np.random.Generator) -> None:
    asked = study.ask()
    seen.add(space.spec(space.suggest(asked)).trial)
    study.tell(asked, generator.random(2).tolist())
