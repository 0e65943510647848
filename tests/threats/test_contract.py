"""What every threat keeps to, over one table with a row for each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import EPS, all_finite
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.metrics import metric
from trainables.records.value import Measured
from trainables.threats import THREATS, Threat, build_threat


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A threat with its settings."""

    name: str
    raw: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.raw.values())])

    def build(self) -> Threat:
        """Build it as from a user's words."""
        return build_threat(self.name, self.raw, radius=EPS)


ROWS = [
    Row(name="evasion"),
    Row(name="evasion", raw={"attacks": "bim", "eps": ["4/255", "2 radius"]}),
    Row(name="certification"),
    Row(name="certification", raw={"points": 20, "thresholds": 0.5}),
    Row(name="evasion", raw={"eps_l2": [0.4, 0.8], "points": 30}),
    Row(name="detection"),
    Row(name="backdoor"),
    Row(
        name="backdoor",
        raw={"trigger": "blend", "source_class": "all", "rate": 0.01, "rate_of": "set"},
    ),
    Row(name="backdoor", raw={"labels": "kept", "obscuring_eps": "1 radius"}),
    Row(name="backdoor", raw={"trigger": "wanet", "rate": 0.3}),
    Row(name="backdoor", raw={"trigger": "sig", "labels": "kept"}),
    Row(name="backdoor", raw={"attacks": ["own", "cover"], "pairs": 2}),
    Row(name="membership"),
    Row(name="inversion"),
    Row(name="inversion", raw={"starts": 3, "kept": 2, "steps": 5}),
    Row(
        name="inversion",
        raw={
            "access": "black_box",
            "prior": "generative",
            "starts": 2,
            "kept": 2,
            "queries": 40,
        },
    ),
    Row(name="cost"),
]
every_threat = pytest.mark.parametrize("row", ROWS, ids=str)


def test_every_threat_has_a_row_and_says_what_it_is() -> None:
    assert {row.name for row in ROWS} == set(THREATS)
    for name, found in THREATS.items():
        assert found.name == name and found.meaning.endswith(".")
        assert isinstance(found.VERSION, int)


@every_threat
def test_the_canonical_form_builds_the_same_threat(row: Row) -> None:
    plain = json.loads(json.dumps(row.build().canonical()))
    name = plain.pop("name")
    assert build_threat(name, plain, radius=0.77) == row.build()


@every_threat
def test_an_unknown_parameter_is_refused(row: Row) -> None:
    with pytest.raises(InputError, match=f"{row.name}: unknown parameter 'nope'"):
        build_threat(row.name, {"nope": 1}, radius=EPS)


@every_threat
def test_a_threat_measures_the_metrics_that_it_lists(row: Row, undefended: TrainedNet) -> None:
    threat, predictor = row.build(), Predictor(undefended.model)
    first = threat.measure(predictor, undefended.ctx)
    assert sorted(first.metrics) == sorted(threat.metric_names())
    json.dumps(first.notes, allow_nan=False)
    for name, value in first.metrics.items():
        declared = metric(name)
        if not isinstance(value, Measured):
            assert declared.may_be_missing and value.reason
            continue
        assert all_finite([value.low, value.value, value.high])
        assert value.low <= value.value <= value.high and value.n >= 1
        if declared.unit == "fraction":
            assert value.low >= 0 and value.high <= 1
    if threat.repeatable:
        again = threat.measure(predictor, undefended.ctx)
        assert (again.metrics, again.notes) == (first.metrics, first.notes)
        assert again.outcomes.keys() == first.outcomes.keys()
        assert all(
            torch.equal(first.outcomes[name], again.outcomes[name]) for name in again.outcomes
        )


@every_threat
def test_measuring_leaves_model_and_mode_alone(row: Row, undefended: TrainedNet) -> None:
    model = undefended.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    row.build().measure(Predictor(model), undefended.ctx)
    assert not any(module.training for module in model.modules())
    assert all(bool((before[name] == now).all()) for name, now in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
