"""Wrong usage: one clear line, exit code 2, nothing written."""

import importlib.metadata
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.commands.dry_run import _too_few
from orchestrator.commands.list import LISTS, table
from orchestrator.program import main
from search_spaces import load_space
from tests.datasets.making import write_images
from tests.search_spaces.writing import write_space
from trainables.errors import TrainingDivergedError, TrialFailedError
from trainables.records.record import TrialRecord


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
    return main()


LAUNCH = ("launch", "--space", "smoke")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*LAUNCH, "--trials", "0"), "--trials must be at least 1"),
        ((*LAUNCH, "--trials", "-5"), "--trials must be at least 1"),
        ((*LAUNCH, "--trials", "many"), "--trials"),
        ((*LAUNCH, "--audit-candidates", "0"), "--audit-candidates must be at least 1"),
        ((*LAUNCH, "--audit-seeds", "-1"), "--audit-seeds must be at least 1"),
        (("audit", "nowhere", "--seeds", "0"), "--seeds must be at least 1"),
        (("audit", "nowhere"), "no run at nowhere"),
        ((*LAUNCH, "--gpus-per-trial", "most"), "--gpus-per-trial 'most'"),
        ((*LAUNCH, "--gpus-per-trial", "1.5"), "--gpus-per-trial must be"),
        ((*LAUNCH, "--max-gpu-hours", "0", "--gpus-per-trial", "0"), "--max-gpu-hours must be"),
        ((*LAUNCH, "--max-gpu-hours", "2", "--gpus-per-trial", "0"), "no trial uses a GPU"),
        ((*LAUNCH, "--seed", "-1"), "--seed must be at least 0"),
        ((*LAUNCH, "--max-concurrent", "0"), "--max-concurrent must be at least 1"),
        ((*LAUNCH, "--cpus-per-trial", "0"), "--cpus-per-trial must be above 0"),
        ((*LAUNCH, "--cpus-per-trial", "nan"), "--cpus-per-trial"),
        ((*LAUNCH, "--cpus-per-trial", "100000"), "there are only"),
        ((*LAUNCH, "--gpus-per-trial", "1.5"), "share of one GPU or a whole number"),
        ((*LAUNCH, "--gpus-per-trial", "-1"), "share of one GPU or a whole number"),
        ((*LAUNCH, "--gpus-per-trial", "512"), "there are only"),
        ((*LAUNCH, "--dataset", "imagenet"), "imagenet"),
        ((*LAUNCH, "--dataset", "folder:/nowhere"), "/nowhere"),
        ((*LAUNCH, "--dataset", "mnist", "--data-dir", "/nowhere"), "/nowhere"),
        ((*LAUNCH, "--model", "vgg"), "unknown model 'vgg'"),
        ((*LAUNCH, "--model", "no.such:factory"), "no.such"),
        ((*LAUNCH, "--image-size", "0"), "--image-size must be at least 1"),
        ((*LAUNCH, "--image-size", "64"), "64"),
        ((*LAUNCH, "--name", "../escape"), "no path"),
        ((*LAUNCH, "--name", "a/b"), "no path"),
        ((*LAUNCH, "--name", ".hidden"), "no path"),
        ((*LAUNCH, "--name", ""), "no path"),
        ((*LAUNCH, "--runs", "/dev/null/runs"), "--runs /dev/null/runs"),
        ((*LAUNCH, "--runs", "/proc/runs"), "--runs /proc/runs"),
        ((*LAUNCH, "--time-budget", "soon"), "--time-budget 'soon'"),
        ((*LAUNCH, "--time-budget", "-2h"), "--time-budget"),
        ((*LAUNCH, "--trial-time-limit", "2 weeks"), "--trial-time-limit '2 weeks'"),
        ((*LAUNCH, "--trial-memory-gib", "0"), "the memory limit of a trial must be above 0"),
        ((*LAUNCH, "--lpips-weights", "/nowhere.pth"), "/nowhere.pth"),
        ((*LAUNCH, "--budget", "quick"), "unknown budget 'quick'"),
        ((*LAUNCH, "--frobnicate"), "--frobnicate"),
        (("launch", "--space", "nowhere"), "unknown space 'nowhere'"),
        (("launch",), "Missing option '--space': A space's name, or a .yaml file."),
        (("status",), "Missing argument 'run': A run's folder or URI."),
        (("fly",), "fly"),
        (("trial", "--defense", "armour"), "unknown defense 'armour'"),
        (("trial", "--defense", "temperature:t=2"), "unknown parameter 't'; known: T"),
        (("trial", "--defense", "temperature:T=0"), "temperature: T must be within"),
        (("trial", "--defense", "temperature:T"), "write NAME:param=value"),
        (("trial", "--defense", "temperature", "--defense", "temperature"), "slot deployment"),
        (("trial", "--defense", "label_smoothing:alpha=0.1+0.2"), "alpha takes one value"),
        (("trial", "--threats", "evil"), "unknown threat 'evil'"),
        (("trial", "--effort", "heroic"), "--effort 'heroic'"),
        (("trial", "--seed", "-1"), "--seed must be at least 0"),
        (("trial", "--model", "small_cnn:norm=layer"), "known: default, batch, group, none"),
        (("status", "nowhere"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("list", "defences"), "unknown list 'defences'; known: spaces, defenses"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2_and_writes_nothing(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEFENSE_SWEEP_DATA", raising=False)
    assert call(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", sorted(LISTS))
def test_every_list_names_what_it_lists_in_json(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "list", what, "--json") == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert rows
    for row in rows:
        assert {"name", "meaning", "source", "parameters", "guarantee"} <= set(row)
        assert row["meaning"] and "\n" not in row["meaning"]


@pytest.mark.parametrize("what", sorted(LISTS))
def test_a_list_on_a_narrow_terminal_shows_every_name_whole(what: str) -> None:
    rows = LISTS[what]()
    narrow = Console(width=80, force_terminal=True, file=io.StringIO(), color_system=None)
    narrow.print(table(rows))
    assert isinstance(narrow.file, io.StringIO)
    shown = {line.partition(" ")[0] for line in narrow.file.getvalue().splitlines()}
    assert {row["name"] for row in rows} <= shown


def test_the_version_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--version") == 0
    version = importlib.metadata.version("defense-sweep")
    assert capsys.readouterr().out == f"defense-sweep {version}\n"


def test_completion_is_that_of_the_installed_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, "--show-completion", "bash")
    printed = capfd.readouterr().out
    assert "_DEFENSE_SWEEP_COMPLETE=complete_bash" in printed
    assert printed.rstrip().endswith(" defense-sweep")


def test_no_command_at_all_prints_the_help_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    captured = capsys.readouterr()
    assert "launch" in captured.out
    assert captured.err == "error: no command is given; the help above lists them\n"


def test_the_list_of_defenses_gives_ranges_and_guarantees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "list", "defenses", "--json")
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["none"]["guarantee"] == "none"
    assert rows["fgsm_adversarial_training"]["guarantee"] == "empirical"
    assert rows["fgsm_adversarial_training"]["parameters"]["eps"]["high"] == 1.0
    assert rows["temperature"]["parameters"]["T"]["words"] == ["fit"]


def test_a_dry_run_prints_trials_ranges_and_hours_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "launch", "--space", "full", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "42 trials" in printed and "hours" in printed and "0.1 - 1.5 radius" in printed
    assert "Then the audit: up to 4 of the best and the undefended model, 3 fresh" in printed
    assert "verifies nothing" not in printed
    assert call(monkeypatch, "launch", "--space", "smoke", "--no-audit", "--dry-run") == 0
    assert "No audit (--no-audit)" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_audit_of_too_few_points_is_told_before_it_begins() -> None:
    words = _too_few(load_space("smoke"), 48)
    assert "a mask of 10% of 48 points would be seen with probability 0.72" in words
    assert words.endswith("set audit: points to 54 or more")
    assert _too_few(load_space("smoke"), 54) == _too_few(load_space("smoke"), None) == ""
    assert _too_few(load_space("privacy"), 24) == ""  # nothing changes its images


def test_a_defense_that_a_model_s_layers_do_not_suit_is_named_before_a_sweep_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scenarios = [{"dataset": "digits", "model": "cnn_bn", "training": {"epochs": 1}}]
    words = "cnn_bn: dp_sgd: .*norm: group"
    alone = write_space(tmp_path, name="alone", scenarios=scenarios, defenses={"dp_sgd": None})
    assert call(monkeypatch, "launch", "--space", str(alone), "--dry-run") == 2
    assert re.search(words, capsys.readouterr().err)
    defenses = {"dp_sgd": None, "label_smoothing": None}
    mixed = write_space(tmp_path, name="mixed", scenarios=scenarios, defenses=defenses)
    assert call(monkeypatch, "launch", "--space", str(mixed), "--dry-run") == 0
    assert re.search(f"{words}.* Trials with it will fail; the others run", caplog.text)


def test_a_dry_run_says_what_a_threat_will_not_find_in_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("common", 150), ("rare", 10)):
        write_images(tmp_path / "photos" / name, count)
    folder = f"folder:{tmp_path / 'photos'}"
    for target, source, words in (
        (0, 1, r"Threats: backdoor: rate 0.1 of the class asks for \d+ poisoned rows, but there"),
        (1, 0, None),
    ):
        space = write_space(
            tmp_path,
            name=f"from{source}",
            scenarios=[{"dataset": folder, "model": "small_cnn", "training": {"epochs": 1}}],
            threats={"backdoor": {"target": target, "source_class": source}},
            objectives=["clean_accuracy", "backdoor_success_rate"],
            constraints=[],
        )
        assert call(monkeypatch, "launch", "--space", str(space), "--dry-run") == 0
        printed = capsys.readouterr().out
        assert re.search(words, printed) if words else "Threats:" not in printed


def test_a_trial_prints_its_record_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        monkeypatch, "trial", "--defense", "early_stopping:patience=1", "--defense",
        "temperature:T=fit", "--threats", "membership", "--json",
    )  # fmt: skip
    record = TrialRecord.from_json(capsys.readouterr().out)
    assert code == 0
    assert record.status == "completed" and record.error is None
    assert [row["name"] for row in record.spec["stack"]] == ["early_stopping", "temperature"]
    assert "membership_auc" in record.metrics and "robust_accuracy" not in record.metrics


def test_a_failed_trial_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lam = "gradient_regularization:lam=100000"
    assert call(monkeypatch, "trial", "--defense", lam, "--threats", "clean", "--json") == 1
    record = TrialRecord.from_json(capsys.readouterr().out)
    assert record.status == "failed"
    assert record.error is not None and "epoch" in record.error


@pytest.mark.parametrize("failure", [TrialFailedError, TrainingDivergedError])
def test_what_fails_on_the_way_is_one_line_and_exit_1(
    failure: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> int:
        raise failure("the export failed:\nno luck")

    monkeypatch.setattr("orchestrator.commands.select.run_select", failing)
    (tmp_path / "manifest.json").write_text("{}")
    assert call(monkeypatch, "select", str(tmp_path)) == 1
    assert capsys.readouterr().err == "error: the export failed: no luck\n"


def test_a_run_that_another_launch_drives_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        space = str(write_space(tmp_path))
        assert call(monkeypatch, "launch", "--space", space, "--runs", str(tmp_path / "runs")) == 2
    assert "another launch is running this sweep" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "thesis.tex").touch()
    space = str(write_space(tmp_path))
    assert call(monkeypatch, "launch", "--space", space, "--runs", str(tmp_path / "runs")) == 2
    assert "holds 'thesis.tex' instead of a run" in capsys.readouterr().err
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 1
