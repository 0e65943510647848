"""The GPU benchmark: run whole on the CPU, and its judgements on figures that are made up."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import benchmarks.gpu as command
from benchmarks.on_gpu.bench import Bench, synthetic_dataset
from benchmarks.on_gpu.compiling import CompiledInTraining, Gain, plain
from benchmarks.on_gpu.equality import (
    STEPPED,
    DrawnOnCpu,
    Nets,
    Reached,
    compared,
    reach,
    trained_nets,
)
from benchmarks.on_gpu.report import Clock, Row, line, missing, readings
from benchmarks.on_gpu.rivals import Runs, Subject, autoattack_runs, pgd_runs
from benchmarks.on_gpu.robustness import right
from benchmarks.on_gpu.settings import FULL, TINY
from benchmarks.on_gpu.speed import in_turn
from benchmarks.on_gpu.training import StopAt, measure_a0
from trainables.attacks import VARIANTS, variant
from trainables.datasets import split_pools
from trainables.records.value import Measured, Missing

CPU = torch.device("cpu")
AMPLE = 1e5
"""Seconds that no machine needs."""
RUN = """
import sys
from benchmarks.gpu import main
code = main(["--tiny", "--seconds", sys.argv[1], "--out", sys.argv[2]])
above = ("ray", "optuna", "orchestrator", "search_spaces", "results")
print("above:", [name for name in above if name in sys.modules])
raise SystemExit(code)
"""


@pytest.fixture(scope="module")
def nets() -> Nets:
    """Train the networks that devices are compared on."""
    return trained_nets(count=32, epochs=4)


@pytest.mark.slow
def test_the_tiny_run_measures_every_part_without_ray(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command_line = [sys.executable, "-c", RUN, str(AMPLE), str(out)]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "above: []"
    found = json.loads(out.read_text())
    rows = found["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(command.PARTS)
    assert found["machine"]["torch"] == torch.__version__ and found["tiny"] is True
    for row in rows:
        assert row["reason"] if row["value"] is None else row["unit"] and row["n"] >= 1, row
    measured = {(row["part"], row["name"]): row for row in rows if row["value"] is not None}
    assert {name for part, name in measured if part == "equality"} == set(VARIANTS)
    assert all(row["passed"] for row in rows if row["part"] == "equality")
    radius = "0.6000"  # four times the digits' own
    assert 0 <= measured["A1", f"accuracy under autoattack at {radius}"]["value"] <= 1
    for name in ("pgd-20, foolbox", "autoattack, pyautoattack", "autoattack, ours"):
        assert measured["attacks", name]["value"] > 0
        assert measured["attacks", name]["n"] == TINY.repeats
    assert measured["certify", "certificates"]["unit"] == "draws/s"


def test_a_run_without_time_says_of_every_part_that_it_was_not_measured() -> None:
    rows = list(command.measure(_bench(), Clock(0.0), 0.0))
    assert [row.part for row in rows] == list(command.PARTS)
    assert all(isinstance(row.value, Missing) and "are over" in row.value.reason for row in rows)


def test_a_part_that_fails_takes_no_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(bench: Bench, clock: Clock) -> Iterator[Row]:
        yield missing("A0", "before", "s", "made up")
        raise RuntimeError("out of\nmemory")

    def fine(bench: Bench, clock: Clock) -> Iterator[Row]:
        yield Row(part="A1", name="after", unit="s", value=readings([clock.left()]))

    monkeypatch.setattr(command, "PARTS", {"A0": failing, "A1": fine})
    before, failed, after = command.measure(_bench(), Clock(100), 100)
    assert (before.name, after.name) == ("before", "after")
    assert failed.passed is False and isinstance(failed.value, Missing)
    assert failed.value.reason == "it failed: RuntimeError: out of memory"
    assert isinstance(after.value, Measured)
    shares = FULL.shares
    # What the first part left is the second one's too.
    assert after.value.value > 100 * (shares["A0"] + shares["A1"]) - 1


def test_the_shares_are_those_of_the_parts_and_no_more_than_the_whole() -> None:
    assert list(FULL.shares) == list(TINY.shares) == list(command.PARTS)
    assert 0.9 < sum(FULL.shares.values()) <= 1


def test_a_share_ends_with_the_whole() -> None:
    moment = 0.0
    clock = Clock(10, lambda: moment)
    share = clock.share(4)
    moment = 3.0
    assert (clock.left(), share.left(), clock.share(100).left()) == (7, 1, 7)


def test_a_training_stops_before_the_epoch_that_would_end_too_late() -> None:
    moments = [100.0, 110.0]
    assert StopAt(until=119).after_epoch(moments).stop
    going_on = StopAt(until=121).after_epoch(moments)
    assert not going_on.stop and going_on.best_epoch == 1


def test_compiling_pays_where_it_saves_more_than_it_takes() -> None:
    gain = Gain(speedup=1.25, compile_s=10)
    assert gain.pays(60) and not gain.pays(40)
    assert not Gain(speedup=0.9, compile_s=0).pays(1000)


def test_a_network_is_compiled_in_train_mode_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout(0.5))
    compiled = CompiledInTraining(model, "eager")
    seen: list[bool] = []

    def noting(x: torch.Tensor) -> torch.Tensor:
        seen.append(compiled.training)
        return x

    compiled._compiled = noting
    x = torch.ones(3, 1, 2, 2)
    compiled.train()(x)
    compiled.eval()(x)
    assert seen == [True]
    assert plain(compiled) is model and plain(model) is model


def test_a_library_that_is_not_there_is_a_row_that_says_so(
    nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    subject = Subject(nets.model, nets.x, nets.y, 0.15, 10)
    for runs in (pgd_runs(subject), autoattack_runs(subject)):
        others = {name: run for name, run in runs.items() if name != "ours"}
        assert len(others) == 2
        for name, run in others.items():
            assert run == Missing(f"{name} is not installed")
        timed = in_turn(others, 1, Clock(AMPLE), CPU)
        assert all(one.missing and not one.seconds for one in timed.values())


def test_libraries_run_in_turn_and_one_that_fails_is_not_asked_again() -> None:
    asked: list[str] = []

    def run(name: str) -> Tensor:
        asked.append(name)
        if name == "broken":
            raise ValueError("made up")
        return torch.zeros(1)

    runs: Runs = {name: lambda name=name: run(name) for name in ("a", "broken", "b")}  # type: ignore[misc]
    timed = in_turn(runs, 3, Clock(AMPLE), CPU)
    assert asked == ["a", "broken", "b", "b", "a", "b", "a"]
    assert timed["broken"].missing == "it failed: ValueError: made up"
    assert len(timed["a"].seconds) == len(timed["b"].seconds) == 3


def test_what_does_not_fit_is_not_run() -> None:
    moment = 0.0

    def slow() -> Tensor:
        nonlocal moment
        moment += 10
        return torch.zeros(1)

    def never() -> Tensor:
        raise AssertionError("there was no time for it")

    # The clock of a run is not the benchmark's own here: what is left falls by ten at once.
    timed = in_turn({"ours": slow, "other": never}, 2, Clock(5, lambda: moment), CPU)
    assert timed["ours"].attacked is not None
    assert timed["other"].missing and "do not fit" in timed["other"].missing


def test_ours_and_foolbox_climb_the_same_hill(nets: Nets) -> None:
    subject = Subject(nets.model, nets.x, nets.y, 0.15, 10)
    resisting = {}
    for name, run in pgd_runs(subject).items():
        if not isinstance(run, Missing):
            attacked = run()
            assert float((attacked - nets.x).abs().max()) <= 0.15 + 1e-6
            resisting[name] = int(right(nets.model, attacked, nets.y).sum())
    assert resisting["ours"] <= resisting["foolbox"] < int(right(nets.model, nets.x, nets.y).sum())


@pytest.mark.parametrize("name", ["pgd", "square", "deepfool"])
def test_the_same_attack_twice_is_equal_bit_by_bit(name: str, nets: Nets) -> None:
    chosen = variant(name)
    once, again = (reach(nets, nets, chosen, {"steps": 20}) for _ in range(2))
    assert compared(name, once, again, None).passed
    # A pixel that differs in its last bit is enough where nothing may differ.
    attacked = again.attacked.clone()
    attacked[0, 0, 0, 0] = torch.nextafter(attacked[0, 0, 0, 0], torch.tensor(2.0))
    other = replace(again, attacked=attacked)
    assert not compared(name, once, other, None).passed


def test_a_device_on_which_an_attack_is_weaker_fails(nets: Nets) -> None:
    weak = replace(nets, eps={norm: radius / 2 for norm, radius in nets.eps.items()})
    on_host, on_device = (reach(one, nets, variant("pgd"), {}) for one in (nets, weak))
    assert not compared("pgd", on_host, on_device, STEPPED).passed


class Rounding(nn.Module):
    """A network whose scores are computed in another precision."""

    def __init__(self, model: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.precision = copy.deepcopy(model).to(precision), precision

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x.to(self.precision)).float()
        return scores


@pytest.mark.parametrize(
    ("name", "precision", "passes"),
    [
        ("fgsm", torch.float64, True),
        ("fgsm", torch.bfloat16, False),
        ("pgd", torch.bfloat16, False),
    ],
)
def test_finer_rounding_passes_and_coarser_rounding_fails(
    name: str, precision: torch.dtype, passes: bool, nets: Nets
) -> None:
    other = replace(nets, model=Rounding(nets.model, precision))
    on_host, on_device = (reach(one, nets, variant(name), {}) for one in (nets, other))
    assert compared(name, on_host, on_device, STEPPED).passed is passes


@pytest.mark.parametrize(
    ("flipped", "louder", "passes"),
    [(0, 0.0, True), (3, 0.0, True), (4, 0.0, False), (0, 5e-4, True), (0, 5e-3, False)],
)
def test_a_device_may_round_otherwise_within_the_tolerance(
    flipped: int, louder: float, passes: bool
) -> None:
    fooled = torch.arange(64) % 2 == 0
    host = Reached(torch.zeros(64, 1, 1, 1), fooled, torch.ones(64), torch.ones(64))
    other = fooled.clone()
    other[:flipped] = ~other[:flipped]
    device = replace(host, fooled=other, loss=host.loss + louder)
    assert (STEPPED.differ, STEPPED.loss) == (0.05, 1e-3)
    assert compared("pgd", host, device, STEPPED).passed is passes


def test_numbers_are_drawn_on_the_cpu_whatever_generator_asks() -> None:
    drawn = []
    for seed in (1, 2):
        with DrawnOnCpu(0):
            generator = torch.Generator().manual_seed(seed)
            drawn.append(torch.rand(3, generator=generator, device=CPU))
        torch.rand(1, generator=generator)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_what_no_real_image_and_no_compiler_tells_is_missing_with_the_reason() -> None:
    settings = replace(TINY, epochs=1, probe_steps=1, compiler="no_such_compiler")
    dataset = synthetic_dataset(CPU, num_train=128, num_test=40)
    assert dataset.shape == (3, 32, 32)
    bench = Bench(settings, CPU, dataset, split_pools(dataset, "published"), "made up")
    rows = list(measure_a0(bench, Clock(AMPLE)))
    accuracies = [row for row in rows if row.unit == "share" or "93.59" in row.name]
    assert len(accuracies) == 2
    assert all(row.value == Missing("made up") for row in accuracies)
    (compiled,) = (row for row in rows if "torch.compile" in row.name)
    assert isinstance(compiled.value, Missing) and "no_such_compiler" in compiled.value.reason
    speeds = [row for row in rows if row.name == "training" and row.unit == "images/s"]
    assert len(speeds) == 1 and isinstance(speeds[0].value, Measured)


def test_a_line_of_the_table_has_unit_n_and_spread_or_the_reason() -> None:
    rates = readings([3.0, 1.0, 2.0])
    row = Row(part="attacks", name="pgd", unit="images/s", value=rates, spread="lowest to highest")
    assert "2 [1, 3] images/s" in line(row) and "n=3" in line(row)
    assert "FAIL" in line(replace(row, passed=False)) and "pass" in line(replace(row, passed=True))
    assert "not measured: made up" in line(missing("attacks", "pgd", "images/s", "made up"))


def _bench() -> Bench:
    dataset = synthetic_dataset(CPU, num_train=100, num_test=20)
    return Bench(FULL, CPU, dataset, split_pools(dataset, "published"), "made up")
