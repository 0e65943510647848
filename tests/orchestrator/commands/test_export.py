"""A chosen stack goes out as a bundle that holds what its card says, and no other one does."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.commands.export import export
from orchestrator.commands.verify import VerifyRequest, verify
from orchestrator.run.paths import RunPaths
from results.audit.audit import Audited
from results.bundle import BundleError, load
from results.bundle.members import REFERENCE, WEIGHTS
from results.bundle.reference import make_reference
from results.records.run import Run
from results.records.run import load as load_run
from tests.making import CPU, EPS, context_of, spec_of
from tests.orchestrator.command_line import run as command
from tests.results.bundle_toys import FitsSecretly
from tests.results.bundles import change_index, change_tensors
from tests.results.run_folders import manifest, write_run
from trainables.defenses import Defense, build_defense
from trainables.errors import InputError, TrialFailedError
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import build_threat
from trainables.trial.settings import TrainingSpec
from trainables.trial.stages import run_trial

POINTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A bundle and the run that it came from."""

    folder: Path
    run: Run
    output: str


def _run(folder: Path, *stack: Defense, pools: str = "search") -> tuple[Run, Audited]:
    """Return a run with one trial of the stack, as its search and its audit."""
    asked = [
        build_threat("evasion", {"points": POINTS}, radius=EPS),
        build_threat("backdoor", {}, radius=EPS),
    ]
    spec = spec_of(*stack, training=TrainingSpec(epochs=8), pools=pools)
    record = run_trial(spec, ArtefactStore(folder / "artefacts"), device=CPU)
    plain = json.loads(record.to_json())
    plain["spec"]["threats"] = [threat.canonical() for threat in asked]
    run = load_run(write_run(folder, manifest(stage_versions={}), [plain]))
    (found,) = run.records
    chosen = Audited(
        search=found,
        records=(found,),
        planned=1,
        values=found.measured,
        seeds={},
        verdict="verified",
        because="1 seed",
        why="front",
        label=found.label,
    )
    return run, chosen


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a stack with a temperature."""
    folder, text = tmp_path_factory.mktemp("export"), io.StringIO()
    run, chosen = _run(folder / "run", build_defense("temperature", {"T": 2}, radius=EPS))
    out = folder / "bundles" / "one"
    export(RunPaths(folder / "run"), run, chosen, out, Console(file=text, width=200))
    return Exported(out, run, text.getvalue())


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Path:
    """Return a copy of the bundle that a test may change."""
    return Path(shutil.copytree(exported.folder, tmp_path / "bundle"))


def _verify(folder: Path, **asked: Any) -> tuple[int, str]:
    text = io.StringIO()
    request = VerifyRequest(**{"bundle": folder, "points": POINTS, "seed": 5, **asked})
    return verify(request, Console(file=text, width=200)), text.getvalue()


def test_the_exported_model_was_trained_anew_on_the_whole_clean_training_data(
    exported: Exported, tmp_path: Path
) -> None:
    bundle = load(exported.folder)
    data = bundle.spec.data
    assert (data.pools, data.train_images, data.measured_images) == ("deployment", None, None)
    assert bundle.spec.seed not in {record.spec["seed"] for record in exported.run.records}
    card = bundle.card
    pools = context_of(spec_of(train_images=None, measured_images=None), tmp_path).pools
    assert pools.validation is not None and pools.auxiliary is not None
    rows = len(pools.train) + len(pools.validation) + len(pools.auxiliary)
    assert card["training_data"]["rows"] == rows == card["training_data"]["rows_after_filtering"]
    assert card["measured"]["seed"] == bundle.spec.seed
    assert "backdoor_success_rate" in card["measured"]["metrics"]
    assert any("twin" in note for note in card["notes"])
    # An epoch's fit of 30 or so is far above chance: the weights that were measured are in it.
    assert card["measured"]["metrics"]["clean_accuracy"]["value"] > 0.8


def test_the_export_tells_its_stages_and_how_to_check_it(exported: Exported) -> None:
    told = exported.output
    stages = ["training on the whole", "deploying", "attacking: evasion", "twin", "writing"]
    places = [told.index(stage) for stage in stages]
    assert places == sorted(places)
    assert told.rstrip().endswith(f"verify {exported.folder}")


def test_a_bundle_as_it_was_exported_is_verified(exported: Exported) -> None:
    code, told = _verify(exported.folder)
    assert code == 0, told
    assert "holds what its card says" in told and "seed 5" in told
    rows = {line.split()[0]: line for line in told.splitlines() if "holds" in line}
    assert {"clean_accuracy", "robust_accuracy"} <= set(rows)


def test_verify_prints_json(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = _verify(exported.folder, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert code == 0 and plain["verified"] is True and plain["seed"] == 5
    assert {row["verdict"] for row in plain["rows"]} == {"holds"}
    assert all({"value", "low", "high", "n"} == set(row["now"]) for row in plain["rows"])


def test_the_command_verifies_and_refuses(bundle: Path) -> None:
    done = command("verify", str(bundle), "--points", str(POINTS), "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    content = bytearray((bundle / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (bundle / WEIGHTS).write_bytes(content)
    refused = command("verify", str(bundle))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1


def test_a_temperature_swapped_and_rehashed_fails(bundle: Path) -> None:
    change_index(bundle, lambda index: index["spec"]["stack"][0].update(T=3.0))
    code, told = _verify(bundle)
    assert code == 1 and "this is not the model that was exported" in told


def test_a_worse_model_with_references_of_its_own_falls_short_of_the_card(bundle: Path) -> None:
    """Whoever swaps the weights and makes all else anew still cannot keep what the card says."""

    def disturb(tensors: Any) -> None:
        tensors["model.head.weight"].copy_(tensors["model.head.weight"].roll(1, 0))

    change_tensors(bundle, WEIGHTS, disturb)
    loaded = load(bundle)
    ctx = context_of(spec_of(train_images=None, measured_images=None), bundle.parent / "store")
    forged = make_reference(loaded.predictor, ctx.pools.test).tensors()
    change_tensors(bundle, REFERENCE, lambda tensors: tensors.update(forged))
    code, told = _verify(bundle)
    assert code == 1 and "falls short of its card" in told


def test_verify_wants_the_very_images_of_the_bundle(bundle: Path) -> None:
    change_index(bundle, lambda index: index["dataset"].update(fingerprint="0" * 64))
    with pytest.raises(InputError, match="not the images that the bundle was made from"):
        _verify(bundle)


@pytest.mark.parametrize(
    ("asked", "words"), [({"points": 1}, "--points"), ({"effort": "brutal"}, "--effort")]
)
def test_verify_refuses_what_makes_no_sense(
    exported: Exported, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        _verify(exported.folder, **asked)


def _in_the_way(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")


def _a_file(out: Path) -> None:
    out.write_text("mine")


@pytest.mark.parametrize("place", [_in_the_way, _a_file])
def test_an_export_over_something_is_refused_before_anything_is_trained(
    place: Callable[[Path], None], exported: Exported, tmp_path: Path
) -> None:
    place(tmp_path / "out")
    (found,) = exported.run.records
    chosen = Audited(
        search=found, records=(), planned=0, values={}, seeds={}, verdict="verified",
        because="", why="front", label="toy",
    )  # fmt: skip
    with pytest.raises(BundleError):
        export(RunPaths(tmp_path / "run"), exported.run, chosen, tmp_path / "out", Console())
    assert not (tmp_path / "run").exists()


def test_a_defense_that_fits_behind_the_context_is_refused_before_it_is_measured(
    tmp_path: Path,
) -> None:
    run, chosen = _run(tmp_path / "run", FitsSecretly())
    text = io.StringIO()
    with pytest.raises(InputError, match=r"FitsSecretly.*ctx\.fitted"):
        export(RunPaths(tmp_path / "run"), run, chosen, tmp_path / "out", Console(file=text))
    assert not (tmp_path / "out").exists() and "attacking" not in text.getvalue()


def test_an_export_whose_model_cannot_be_measured_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, chosen = _run(tmp_path / "run")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr("trainables.threats.cost.Cost.measure", broken)
    out = tmp_path / "bundle"
    with pytest.raises(TrialFailedError, match=r"the export of none failed: .*out of luck"):
        export(RunPaths(tmp_path / "run"), run, chosen, out, Console(file=io.StringIO()))
    assert not out.exists()


def test_a_reproduction_is_not_exported(exported: Exported, tmp_path: Path) -> None:
    (found,) = exported.run.records
    published = {**found.spec, "data": {**found.spec["data"], "pools": "published"}}
    chosen = Audited(
        search=replace(found, own=replace(found.own, spec=published)), records=(), planned=0,
        values={}, seeds={}, verdict="verified", because="", why="front", label="toy",
    )  # fmt: skip
    with pytest.raises(InputError, match="published pools"):
        export(RunPaths(tmp_path / "run"), exported.run, chosen, tmp_path / "out", Console())
