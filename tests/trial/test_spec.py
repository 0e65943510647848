import json
from dataclasses import replace
from typing import Any

import pytest

from tests.making import EPS, one_of_each_slot, spec_of
from trainables.defenses import build_defense, build_stack
from trainables.errors import InputError
from trainables.threats import THREATS, build_threat
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec, spec_from_canonical

BUSY = spec_of(
    *one_of_each_slot(),
    threats=[build_threat(name, {}, radius=EPS) for name in THREATS],
    seed=3,
)


@pytest.mark.parametrize(
    "spec",
    [
        spec_of(),
        BUSY,
        spec_of(build_defense("fgsm_adversarial_training", {"eps": [0.1, 0.2]}, radius=EPS)),
        spec_of(build_defense("temperature", {"T": "fit"}, radius=EPS)),
        spec_of(threats=[THREATS["evasion"](attacks=("pgd",), eps=(0.1,))]),  # type: ignore[call-arg]
        spec_of(threats=[build_threat("evasion", {"attacks": "fgsm", "eps": "1/9"}, radius=EPS)]),
        replace(spec_of(), data=DataSpec(resize="squash", skip_bad_images=True)),
    ],
)
def test_a_spec_comes_back_from_its_canonical_json(spec: TrialSpec) -> None:
    again = spec_from_canonical(json.loads(json.dumps(spec.canonical())))
    assert again.canonical() == spec.canonical()
    assert again.trial == spec.trial


def test_every_part_of_a_spec_is_part_of_the_identity() -> None:
    temperature = build_defense("temperature", {}, radius=EPS)
    others = [
        spec_of(),
        spec_of(seed=1),
        spec_of(epochs=2),
        spec_of(train_images=100),
        spec_of(measured_images=10),
        spec_of(pools="published"),
        spec_of(temperature),
        spec_of(build_defense("temperature", {"T": 2}, radius=EPS)),
        spec_of(threats=[build_threat("cost", {}, radius=EPS)]),
        spec_of(model=ModelSpec(norm="batch")),
        spec_of(training=TrainingSpec(learning_rate=0.01)),
        TrialSpec(data=DataSpec(), model=ModelSpec(), training=TrainingSpec(), effort="audit"),
        replace(spec_of(), data=DataSpec(resize="squash")),
        replace(spec_of(), data=DataSpec(skip_bad_images=True)),
    ]
    assert len({spec.trial for spec in others}) == len(others)


def test_the_order_in_which_defenses_are_named_does_not_matter() -> None:
    defenses = one_of_each_slot()
    assert len(defenses) >= 5
    assert build_stack(defenses) == build_stack(reversed(defenses))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataSpec(name="imagenet"), "unknown data set 'imagenet'"),
        (lambda: DataSpec(train_images=0), "train_images must be at least 1, but got 0"),
        (lambda: DataSpec(pools="all"), "known: search, published"),
        (lambda: ModelSpec(name="vgg"), "unknown model 'vgg'; known: small_cnn"),
        (lambda: ModelSpec(norm="layer"), "known: default, batch, group, none"),
        (lambda: TrainingSpec(learning_rate=1e6), "learning_rate must be within"),
        (lambda: TrainingSpec(batch_size=1), "batch_size must be within"),
        (lambda: TrainingSpec(optimizer="lion"), "known: sgd, adam"),
        (lambda: TrialSpec(data=DataSpec(), model=ModelSpec(), training=TrainingSpec(),
                           effort="hard"),  # type: ignore[arg-type]
         "unknown effort 'hard'; known: screen, audit"),
        (lambda: spec_of(threats=[THREATS["cost"](), THREATS["cost"]()]), "named twice"),
        (lambda: build_threat("theft", {}, radius=EPS), "unknown threat 'theft'; known: evasion"),
        (lambda: build_threat("evasion", {"attacks": "magic"}, radius=EPS), "unknown attack"),
        (lambda: build_threat("evasion", {"eps": "2"}, radius=EPS), "eps must be within"),
        (lambda: build_threat("evasion", {"attacks": []}, radius=EPS), "attacks is empty"),
        (lambda: build_threat("detection", {"k": 1}, radius=EPS), "unknown parameter .k.; known: "),
        (lambda: build_threat("cost", {"k": 1}, radius=EPS), "it takes no parameters"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_line(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
