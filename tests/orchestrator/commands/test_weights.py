"""`--weights`: what is no checkpoint of the model is refused in one line, with exit code 2."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.program import main
from tests.models.given.checkpoints import checkpoint, network
from tests.orchestrator.command_line import run

SPACE = """
name: mine
description: two trials on given weights
scenarios: [{dataset: digits}]
defenses: {temperature: {T: [1.5, 2.0]}, label_smoothing: {}}
first: [{}, {label_smoothing: }]
threats: {}
objectives: [clean_accuracy]
search: {algorithm: grid}
"""


class Evil:
    """Runs a command wherever it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil-was-run",)


def truncated(path: Path) -> None:
    """Leave the first half of a checkpoint."""
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fewer_classes(path: Path) -> None:
    """Answer nine classes."""
    state = network().state_dict()
    torch.save({n: v[:9] if n.startswith("head.") else v for n, v in state.items()}, path)


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "evil": (
        lambda path: torch.save({"state_dict": Evil()}, path),
        "code in a checkpoint is never",
    ),
    "truncated": (truncated, "truncated or corrupt"),
    "other": (
        lambda p: torch.save(network("lenet5").state_dict(), p),
        "are not expected (body.1.0.weight",
    ),
    "classes": (fewer_classes, "it answers 9 classes, but the data set has 10"),
    "absent": (lambda path: None, "no such file"),
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command in this process."""
    monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
    return main()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("command", ["launch", "trial"])
def test_what_is_no_checkpoint_of_the_model_is_one_line(
    command: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write, words = WRITERS[name]
    write(tmp_path / "w.pt")
    (tmp_path / "mine.yaml").write_text(SPACE)
    asked = ("--model", "small_cnn", "--weights", "w.pt", "--not-trained-on-these")
    how = ("--space", "mine.yaml") if command == "launch" else ("--threats", "clean")
    assert call(monkeypatch, command, *how, *asked) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "runs").exists() and not (tmp_path / "evil-was-run").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--model", "small_cnn"), "or pass --not-trained-on-these"),
        (("--not-trained-on-these",), "name their network with --model"),
        (
            ("--model", "small_cnn", "--not-trained-on-these", "--defense", "trades"),
            "trades cannot be put on given weights",
        ),
    ],
)
def test_what_must_be_said_with_them_is_asked_for(
    asked: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = checkpoint(tmp_path)
    assert call(monkeypatch, "trial", "--threats", "clean", "--weights", place, *asked) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_trial_says_whose_weights_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--model", "small_cnn", "--weights", checkpoint(tmp_path), "--not-trained-on-these")
    assert call(monkeypatch, "trial", "--threats", "clean", *asked) == 0
    out = capsys.readouterr().out
    assert "its weights were given and are kept as they are: nothing was trained" in out
    assert "generalization_gap: missing" in out


@pytest.mark.slow
def test_a_negated_checkpoint_under_the_same_path_is_refused(tmp_path: Path) -> None:
    place = checkpoint(tmp_path)
    (tmp_path / "mine.yaml").write_text(SPACE)
    asked = (
        "launch", "--space", str(tmp_path / "mine.yaml"), "--model", "small_cnn", "--weights",
        place, "--not-trained-on-these", "--no-audit", "--runs", str(tmp_path / "runs"), "--name",
        "mine",
    )  # fmt: skip
    first = run(*asked, "--trials", "2")
    assert first.returncode == 0, first.stderr
    assert "took the prefix 'module.' off the names" in first.stdout
    assert "label_smoothing is left out: it takes part in the training" in first.stdout
    negated = network()
    with torch.no_grad():
        for parameter in negated.parameters():
            parameter.neg_()
    checkpoint(tmp_path, negated)
    refused = run(*asked, "--trials", "3")
    assert refused.returncode == 2, refused.stdout
    assert f"the code or weights of {place} changed" in refused.stderr
    exported = run("select", str(tmp_path / "runs" / "mine"), "--export", str(tmp_path / "out"))
    assert exported.returncode != 0 and not (tmp_path / "out").exists()
