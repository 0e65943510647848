import math

import pytest

from trainables.attacks import ATTACKS, VARIANTS
from trainables.errors import InputError
from trainables.metrics import METRICS, at_eps, at_threshold, metric
from trainables.metrics.membership import MEMBERSHIP_ATTACKS
from trainables.metrics.metric import (
    AREA,
    BONFERRONI,
    BOOTSTRAP,
    BY_CLASS,
    CALIBRATION,
    CLUSTERED,
    DIFFERENCE,
    EXACT,
    FARTHEST,
    LOWEST,
    MEAN,
    ORDER,
    WILSON,
)
from trainables.threats import THREATS
from trainables.threats.backdoor.attacks import ATTACKS as BACKDOORS
from trainables.threats.backdoor.attacks import OWN
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.clean import METRIC_NAMES
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.membership.membership import Membership

KNOWN_INTERVALS = {
    WILSON,
    LOWEST,
    CALIBRATION,
    CLUSTERED,
    MEAN,
    BOOTSTRAP,
    BY_CLASS,
    AREA,
    EXACT,
    DIFFERENCE,
    ORDER,
    BONFERRONI,
    FARTHEST,
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is(name: str) -> None:
    found = metric(name)
    assert found.name == name
    assert found.meaning.endswith(".") and found.unit
    assert found.interval in KNOWN_INTERVALS
    assert found.worst is None or math.isfinite(found.worst)


@pytest.mark.parametrize("name", METRICS)
def test_the_worst_value_lies_on_the_bad_side(name: str) -> None:
    found = metric(name)
    if found.worst is not None:
        assert found.worst == {"maximize": 0.0, "minimize": 1.0}[found.direction]
        assert found.unit == "fraction" or found.worst == 0


def test_every_attack_has_its_metrics() -> None:
    for name in ATTACKS:
        assert metric(f"adversarial_accuracy_{name}").direction == "maximize"
        assert metric(f"attack_success_rate_{name}").direction == "minimize"


def test_every_metric_of_a_threat_is_declared_and_every_declared_one_is_measured() -> None:
    given = {name for threat in THREATS.values() for name in threat().metric_names()}
    given |= set(Evasion(attacks=tuple(VARIANTS)).metric_names())
    given |= set(Backdoor(attacks=(OWN, *BACKDOORS)).metric_names())
    given |= set(Membership(attacks=tuple(MEMBERSHIP_ATTACKS)).metric_names())
    shares = ("certified_accuracy", "certified_precision")
    larger = {at_threshold(share, T) for share in shares for T in (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)}
    assert larger <= given
    assert given - larger | set(METRIC_NAMES) == set(METRICS)


def test_a_metric_at_another_radius_is_the_same_metric() -> None:
    name = at_eps("adversarial_accuracy_pgd", 8 / 255)
    assert name == "adversarial_accuracy_pgd_at_0.0314"
    assert metric(name).direction == "maximize"
    assert "0.0314" in metric(name).meaning


def test_a_metric_of_the_larger_certificates_is_the_same_metric() -> None:
    name = at_threshold("certified_accuracy", 0.5)
    assert name == "certified_accuracy_at_0.5"
    assert metric(name).direction == "maximize" and metric(name).worst == 0
    assert "0.5 (L2)" in metric(name).meaning


@pytest.mark.parametrize("name", ["accuracy", "accuracy_at_0.0314", "robust_accuracy_at_0.1", ""])
def test_an_unknown_metric_names_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="clean_accuracy"):
        metric(name)
