from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.proposals import Proposal
from orchestrator.sweep.packing import Packing, Peaks, weight_of
from orchestrator.sweep.resources import MOST_ON_A_GPU
from tests.making import spec_of
from trainables.defenses import Defense, build_defense
from trainables.records.record import TrialRecord
from trainables.threats import build_threat
from trainables.trial.settings import TrainingSpec
from trainables.trial.spec import TrialSpec

TOTAL = 24_000
SMOOTHING = build_defense("label_smoothing", {}, radius=0.1)
FILTER = build_defense("spectral_signatures", {}, radius=0.1)


def ensemble(size: int) -> Defense:
    return build_defense("ensemble", {"size": size}, radius=0.1)


def proposal_of(spec: TrialSpec) -> Proposal:
    return Proposal({}, spec)


def record_of(spec: TrialSpec, peak: int | None, **changes: Any) -> TrialRecord:
    hardware = {} if peak is None else {"gpu_peak_mib": peak, "gpu_total_mib": TOTAL}
    made = TrialRecord(
        trial=spec.trial,
        spec=spec.canonical(),
        sampled={},
        status="completed",
        hardware=hardware,
    )
    # As it comes back from its file.
    return replace(TrialRecord.from_json(made.to_json()), **changes)


@pytest.mark.parametrize(
    ("peak", "share"),
    [
        (19_999, 1),  # 1.2 times that is all of it: nobody fits beside
        (10_001, 1),
        (10_000, 0.5),
        (6_000, 0.3333),
        (1_000, 1 / MOST_ON_A_GPU),
    ],
)
def test_a_share_holds_the_measured_peak_and_a_fifth_more(peak: int, share: float) -> None:
    found = Peaks([record_of(spec_of(), peak)]).share(spec_of(epochs=7).canonical())
    assert found == share
    assert share == 1 or share * TOTAL >= 1.2 * peak * 0.999  # cut to Ray's grain of 1e-4


@pytest.mark.parametrize("count", range(1, MOST_ON_A_GPU + 1))
def test_shares_of_one_gpu_never_add_up_to_more(count: int) -> None:
    peak = int(TOTAL / count / 1.2) - 1
    share = Peaks([record_of(spec_of(), peak)]).share(spec_of().canonical())
    assert share is not None
    assert share * count <= 1 and share * count == pytest.approx(1, abs=1e-3)


def test_nothing_is_known_of_a_kind_that_was_not_measured() -> None:
    measured = Peaks([record_of(spec_of(SMOOTHING), 1_000)])
    assert measured.share(spec_of(SMOOTHING).canonical()) is not None
    for other in (
        spec_of(SMOOTHING, train_images=301),
        spec_of(SMOOTHING, training=TrainingSpec(batch_size=128)),
        spec_of(SMOOTHING, threats=[build_threat("membership", {}, radius=0.1)]),
        replace(spec_of(SMOOTHING), effort="audit"),
        spec_of(SMOOTHING, FILTER),
        spec_of(ensemble(2)),
    ):
        assert measured.share(other.canonical()) is None


def test_a_larger_ensemble_is_not_known_from_a_smaller_one() -> None:
    measured = Peaks([record_of(spec_of(ensemble(3)), 1_000)])
    assert measured.share(spec_of(ensemble(2)).canonical()) is not None
    assert measured.share(spec_of(ensemble(4)).canonical()) is None


def test_a_stack_is_known_from_its_parts_and_takes_the_neediest() -> None:
    measured = Peaks([record_of(spec_of(SMOOTHING), 1_000), record_of(spec_of(FILTER), 9_000)])
    assert measured.share(spec_of(SMOOTHING, FILTER).canonical()) == 0.5
    assert measured.share(spec_of(SMOOTHING).canonical()) == 1 / MOST_ON_A_GPU


def test_a_trial_that_failed_or_had_no_gpu_teaches_nothing() -> None:
    records = [record_of(spec_of(), 1_000, status="failed"), record_of(spec_of(), None)]
    assert Peaks(records).share(spec_of().canonical()) is None


def test_the_smallest_gpu_seen_is_the_one_that_a_share_must_hold_on() -> None:
    small = record_of(spec_of(), 4_000)
    large = replace(small, hardware={"gpu_peak_mib": 4_000, "gpu_total_mib": 80_000})
    assert Peaks([large]).share(spec_of().canonical()) == 1 / MOST_ON_A_GPU
    assert Peaks([large, small]).share(spec_of().canonical()) == 0.2


def test_trials_wait_while_each_gpu_has_one_that_is_measured() -> None:
    packing = Packing(1.0, auto=True)
    first, second = spec_of(), spec_of(SMOOTHING)
    assert packing.may_propose(lambda: 0)  # a cluster that has not grown yet
    assert packing.give(proposal_of(first)) == 1
    assert not packing.may_propose(lambda: 0)
    assert not packing.may_propose(lambda: 1)
    assert packing.may_propose(lambda: 2)
    packing.take_back(first.trial, record_of(first, 1_000))
    assert packing.may_propose(lambda: 1)
    assert packing.give(proposal_of(spec_of(epochs=3))) == 1 / MOST_ON_A_GPU
    assert packing.give(proposal_of(second)) == 1


def test_a_resumed_sweep_remembers_what_was_measured() -> None:
    packing = Packing(1.0, auto=True, records=[record_of(spec_of(), 1_000)])
    assert packing.give(proposal_of(spec_of(epochs=3))) == 1 / MOST_ON_A_GPU
    assert packing.may_propose(lambda: 1)


@pytest.mark.parametrize("auto", [True, False])
def test_a_trial_that_grew_out_of_its_share_gets_a_whole_gpu_once(auto: bool) -> None:
    packing = Packing(0.25, auto=auto, records=[record_of(spec_of(), 4_500)])
    proposal = proposal_of(spec_of(epochs=3))
    assert packing.give(proposal) == 0.25
    assert packing.grew_out(proposal) == 0.25
    assert packing.give(packing.again.popleft()) == 1
    assert not packing.may_propose(lambda: 1)  # else smaller ones would never let it in
    packing.take_back(proposal.spec.trial, None)
    assert packing.may_propose(lambda: 1)


@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_what_was_told_is_given_and_nothing_waits(gpus: float) -> None:
    packing = Packing(gpus, auto=False)
    for epochs in range(1, 5):
        assert packing.may_propose(lambda: 0)
        assert packing.give(proposal_of(spec_of(epochs=epochs))) == gpus


def test_a_trial_that_lost_its_worker_waits_with_what_it_had() -> None:
    packing = Packing(0.5, auto=False)
    proposal = proposal_of(spec_of())
    packing.give(proposal)
    packing.start_anew(proposal)
    assert packing.give(packing.again.popleft()) == 0.5 and not packing.again


def test_weights_order_what_is_heavier() -> None:
    light, heavy = weight_of(spec_of().canonical()), weight_of(spec_of(SMOOTHING).canonical())
    assert light.kind == heavy.kind and light.sizes.keys() < heavy.sizes.keys()


def test_a_weight_is_the_same_from_a_spec_and_from_its_record(tmp_path: Path) -> None:
    spec = spec_of(ensemble(3), FILTER)
    path = tmp_path / "record.json"
    path.write_text(record_of(spec, None).to_json())
    read = TrialRecord.from_json(path.read_text())
    assert weight_of(read.spec) == weight_of(spec.canonical())
