import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.defenses import toys
from tests.making import EPS, context_of, spec_of
from trainables.defenses import (
    DEFENSES,
    SLOTS,
    Defense,
    Stack,
    build_defense,
    build_stack,
    defense_type,
)
from trainables.errors import InputError
from trainables.trial.spec import spec_from_canonical

MODULE = "users_own_defenses"
CODE = f"""
from dataclasses import dataclass
from trainables.defenses import Defense
from trainables.parameters import parameter

@dataclass(frozen=True, kw_only=True)
class Mine(Defense):
    name = "{MODULE}:Mine"
    slot = "penalty"
    lam: float = parameter(1.0, kind="float", meaning="weight", low=0.0)

class Misnamed(Defense):
    name = "mine"

class NoDefense:
    pass
"""


@pytest.fixture
def module_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a user's module, importable during the test."""
    file = tmp_path / f"{MODULE}.py"
    file.write_text(CODE)
    (tmp_path / "broken_defenses.py").write_text("this is no python")
    (tmp_path / "failing_defenses.py").write_text("raise RuntimeError('one\\ntwo')")
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop(MODULE, None)


def test_a_users_own_defense_is_found_by_import_path(module_file: Path) -> None:
    mine = build_defense(f"{MODULE}:Mine", {"lam": "3"}, radius=EPS)
    assert mine.canonical() == {"name": f"{MODULE}:Mine", "lam": 3.0}
    spec = spec_of(mine)
    assert spec_from_canonical(spec.canonical()) == spec
    with pytest.raises(InputError, match="lam must be within"):
        build_defense(f"{MODULE}:Mine", {"lam": -1}, radius=EPS)


def test_the_code_of_a_users_own_defense_is_part_of_the_identity(
    module_file: Path, tmp_path: Path
) -> None:
    spec = spec_of(build_defense(f"{MODULE}:Mine", {}, radius=EPS))
    before = context_of(spec, tmp_path).deployment
    assert context_of(spec, tmp_path).deployment == before
    module_file.write_text(CODE + "# changed\n")
    assert context_of(spec, tmp_path).deployment != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "unknown defense 'nope'; known: none, spectral"),
        (f"{MODULE}:Absent", "has no 'Absent'"),
        (f"{MODULE}:NoDefense", "is not a Defense class"),
        (f"{MODULE}:dataclass", "is not a Defense class"),
        (f"{MODULE}:Misnamed", "write name = 'users_own_defenses:Misnamed' in it"),
        ("no_such_module:Mine", "no_such_module cannot be imported"),
        ("no.such.module:Mine", r"no\.such\.module cannot be imported"),
        ("broken_defenses:Mine", "SyntaxError"),
        ("failing_defenses:Mine", "RuntimeError: one two"),
        (":Mine", "is not an import path"),
        (".relative:Mine", "is not an import path"),
    ],
)
def test_what_is_no_defense_is_refused_in_one_line(
    name: str, message: str, module_file: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        defense_type(name)
    assert "\n" not in str(caught.value)


def test_a_stack_is_in_the_order_of_its_slots() -> None:
    names = [
        "none", "temperature", "early_stopping", "gradient_regularization", "label_smoothing",
        "fgsm_adversarial_training",
    ]  # fmt: skip
    stack = build_stack(build_defense(name, {}, radius=EPS) for name in names)
    positions = [SLOTS.index(defense.slot) for defense in stack if defense.slot]
    assert positions == sorted(positions)
    assert "none" not in [defense.name for defense in stack]
    assert len(stack) == len(names) - 1
    assert [defense.name for defense in stack.training] == [
        "fgsm_adversarial_training", "label_smoothing", "gradient_regularization", "early_stopping"
    ]  # fmt: skip


def test_no_stack_is_unchecked() -> None:
    spec = spec_of(DEFENSES["temperature"]())
    with pytest.raises(InputError, match="both fill the slot penalty"):
        replace(spec.stack, defenses=(toys.ClipWeights(), toys.SmallHead()))
    swapped = Stack((DEFENSES["temperature"](), toys.ClipWeights()))
    assert [defense.slot for defense in swapped] == ["penalty", "deployment"]


def test_what_only_changes_the_deployment_is_no_part_of_a_trainings_identity() -> None:
    one, two = (
        build_stack([DEFENSES["label_smoothing"](), build_defense("pixeldp", raw, radius=EPS)])
        for raw in ({"draws": 20}, {"draws": 30})
    )
    assert one.identity() != two.identity()
    assert one.training_identity() == two.training_identity() != []
    assert Stack((DEFENSES["temperature"](),)).training_identity() == []


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (toys.ClipWeights(), toys.SmallHead(), "both fill the slot penalty"),
        (toys.ClipWeights(), toys.NoSteps(), "both own the step policy of a training"),
        (toys.SmallHead(), DEFENSES["temperature"](), "a small head has no scale of its own"),
        (DEFENSES["temperature"](), DEFENSES["temperature"](), "both fill the slot deployment"),
    ],
)
def test_two_that_cannot_be_stacked_are_refused_with_the_reason(
    first: Defense, second: Defense, reason: str
) -> None:
    for pair in ((first, second), (second, first)):
        with pytest.raises(InputError, match=f"cannot be stacked: {reason}") as caught:
            build_stack(pair)
        assert first.name in str(caught.value) and second.name in str(caught.value)
