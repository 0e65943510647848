"""`select` in a shell: exit codes, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from results.audit.audited_front import audited_front
from results.records.run import load
from tests.results.audits import write_demo_audit
from tests.results.run_folders import manifest, record, share, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the audited demo run's folder."""
    return write_demo_audit(tmp_path_factory.mktemp("runs") / "demo")


def shell(words: str, **folders: Path) -> subprocess.CompletedProcess[str]:
    """Run `select` in a shell, as a release gate does; $RUN and the like are folders."""
    command = f'"{sys.executable}" -m orchestrator select {words}'
    variables = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=variables | {name: str(folder) for name, folder in folders.items()},
    )


def test_a_gate_passes_fails_and_refuses_by_its_exit_code(run: Path) -> None:
    passes = shell(
        "\"$RUN\" --require 'clean_accuracy>=0.9' --require 'backdoor_success_rate<=0.1'", RUN=run
    )
    assert (passes.returncode, passes.stderr) == (0, "")
    assert "1. fgsm_adversarial_training(eps=0.06, fraction=0.5) + label_smo" in passes.stdout
    assert "backdoor_success_rate<=0.1 excludes 3 of 4 verified candidates" in passes.stdout
    assert "Not recommended: temperature(T=5) (masking suspected): a score-only" in passes.stdout

    fails = shell("\"$RUN\" --require 'clean_accuracy>=0.99'", RUN=run)
    assert (fails.returncode, fails.stderr) == (3, "")
    assert "Nothing fits." in fails.stdout
    assert "The nearest miss is fgsm_adversarial_training(eps=0.06" in fails.stdout

    plain = shell("\"$RUN\" --require 'clean_accuracy>=0.925' --export model", RUN=run)
    assert (plain.returncode, plain.stderr) == (3, "")
    assert "Only the undefended model meets the requirements" in plain.stdout
    assert "--allow-undefended" in plain.stdout and "Exporting" not in plain.stdout

    typo = shell("\"$RUN\" --require 'clean_acuracy>=0.9'", RUN=run)
    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr.startswith("error: requirement 'clean_acuracy>=0.9': unknown metric")
    assert "the closest first: clean_accuracy, " in typo.stderr
    assert typo.stderr.count("\n") == 1


def select(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command line here; give its exit code and what it printed."""
    from orchestrator import program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["orchestrator", "select", *words])
        code = program.main()
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_an_unknown_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = select(capsys, str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert error.startswith("error: no run at ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--require", "clean_accuracy=>0.9"], "unknown operator '=>'"),
        (["--require", "clean_accuracy>=lots"], "'lots' is not a number"),
        (["--maximize", "robust"], "--maximize: unknown metric 'robust'"),
        (["--minimize", "robust"], "--minimize: unknown metric 'robust'"),
        (
            ["--maximize", "clean_accuracy", "--minimize", "clean_accuracy"],
            "clean_accuracy is to be both maximized and minimized",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    code, out, error = select(capsys, str(run), *words)
    assert (code, out) == (2, "")
    assert complaint in error and error.count("\n") == 1


def test_json_is_all_that_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = select(
        capsys, str(run), "--require", "clean_accuracy>=0.8", "--maximize", "robust_accuracy",
        "--merge", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert [pick["trial"] for pick in found["picks"]] == ["strong00", "smooth00"]
    assert found["picks"][1]["not_told_apart"] == ["mild0000"]
    assert found["picks"][0]["values"]["robust_accuracy"]["seeds"] == 3
    assert [row["trial"] for row in found["references"]] == ["plain000"]


def test_a_suggestion_and_the_reference_are_said_to_be_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = select(capsys, str(run))
    assert code == 0
    assert "Reference: the undefended model: verified" in out
    assert "none" not in out.split("Ranked")[1].split("Reference")[0]
    assert "Suggested, as nothing is required: fgsm_adversarial_training" in out
    assert "Branke et al., 2004" in out


def test_the_undefended_model_is_picked_only_where_that_is_allowed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    required = ["--require", "clean_accuracy>=0.925"]
    assert select(capsys, str(run), *required)[0] == 3
    code, out, _ = select(capsys, str(run), *required, "--allow-undefended")
    assert code == 0
    assert "1. the undefended model: verified" in out
    assert "Reference" not in out


def test_of_several_data_sets_each_pick_says_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_demo_audit(tmp_path / "demo")
    for file in (folder / "audit" / "records").glob("audit3seed*.json"):
        plain = json.loads(file.read_text())
        plain["spec"]["data"]["name"] = "mnist"
        file.write_text(json.dumps(plain))
    _, out, _ = select(capsys, str(folder), "--maximize", "robust_accuracy")
    assert "1. fgsm_adversarial_training(eps=0.2, fraction=0.5) on mnist: verified" in out
    assert "Reference: the undefended model on digits: verified" in out
    # No undefended model of that data set was audited.
    assert "against undefended" not in out.split("2. ")[0]
    front = audited_front(load(folder))
    assert "strong00" not in {each.trial for each in front.candidates}


def test_without_an_audit_it_says_to_run_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "searched", manifest(), [record("a")])
    code, out, _ = select(capsys, str(folder), "--require", "clean_accuracy>=0.1")
    assert code == 3
    assert f"python -m orchestrator audit {folder}" in out
    assert "1 trial of the search that no audit has verified" in out


def test_a_refuted_certificate_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_demo_audit(tmp_path / "demo")
    notes = {"evasion": {"radius_l2": 0.5}}
    metrics = {"certified_accuracy_at_0.5": share(0.8), "robust_accuracy_l2": share(0.3)}
    row = record("proof", metrics=metrics, notes=notes)
    (folder / "records" / "proof.json").write_text(json.dumps(row))
    code, out, error = select(capsys, str(folder))
    assert (code, out) == (2, "")
    assert "trial proof" in error and "certified accuracy 0.800" in error
