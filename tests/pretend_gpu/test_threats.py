"""Every threat on the pretended GPU: the figures that it measures on the CPU, of the same model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.making import CPU, EPS
from tests.pretend_gpu.cases import alike, device, tiny
from tests.threats.test_contract import ROWS, Row
from trainables.defenses import build_defense
from trainables.records.record import TrialRecord
from trainables.records.value import Measured, MetricValue
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import THREATS, build_threat
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial

pytestmark = pytest.mark.pretend_gpu

AUDITED: Mapping[str, Mapping[str, Any]] = {
    "evasion": {"points": 3},
    "certification": {"points": 2},
    "detection": {},
    "backdoor": {"attacks": ["adaptive_blend", "wanet", "sig"], "pairs": 2},
    "membership": {"shadows": 2},
    "inversion": {"starts": 2, "kept": 1, "steps": 3},
    "cost": {},
}
STACK = build_defense("mahalanobis_detector", {}, radius=EPS)
"""A deployment that rejects, so that every threat has something to measure."""


def _figures(record: TrialRecord) -> dict[str, MetricValue]:
    assert record.status == "completed", record.error
    costs = ("seconds", "latency", "memory")  # of the device itself
    return {
        name: value
        for name, value in record.metrics.items()
        if not any(word in name for word in costs)
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArtefactStore, ArtefactStore]:
    """Return a store for each device, in which what threats train is kept for the next ones."""
    here, there = (tmp_path_factory.mktemp(name) for name in ("device", "cpu"))
    return ArtefactStore(here), ArtefactStore(there)


def _assert_measured_alike(spec: TrialSpec, stores: tuple[ArtefactStore, ArtefactStore]) -> None:
    """Train on the CPU, measure on both devices, and compare every figure."""
    for store in stores:
        run_trial(replace(spec, threats=()), store, device=CPU)
    with alike():
        on_device, on_cpu = (
            _figures(run_trial(spec, store, device=where))
            for store, where in zip(stores, (device(), CPU), strict=True)
        )
    assert on_device.keys() == on_cpu.keys()
    for name, expected in on_cpu.items():
        found = on_device[name]
        if isinstance(expected, Measured):
            assert isinstance(found, Measured), name
            assert found.value == pytest.approx(expected.value, rel=1e-3, abs=1e-4), name
        else:
            assert found == expected


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_threat_measures_on_the_device_what_it_does_on_the_cpu(
    row: Row, stores: tuple[ArtefactStore, ArtefactStore]
) -> None:
    _assert_measured_alike(tiny(STACK, threats=[row.build()]), stores)


def test_every_threat_is_audited() -> None:
    assert set(AUDITED) == set(THREATS)


@pytest.mark.parametrize("name", AUDITED)
def test_an_audit_measures_on_the_device_what_it_does_on_the_cpu(
    name: str, stores: tuple[ArtefactStore, ArtefactStore]
) -> None:
    threat = build_threat(name, AUDITED[name], radius=EPS)
    _assert_measured_alike(replace(tiny(threats=[threat]), effort="audit"), stores)
