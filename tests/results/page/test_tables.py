"""The columns of the trials table are a contract."""

from pathlib import Path

import pandas as pd

from results.page.tables import write_tables
from results.records.run import load
from tests.results.run_folders import (
    demo_records,
    evasion_notes,
    fgsm,
    manifest,
    record,
    temperature,
    write_run,
)


def test_columns_come_in_the_declared_order(tmp_path: Path) -> None:
    scores = {"clean_accuracy": 0.9, "robust_accuracy": 0.5, "membership_auc": 0.6}
    more = {"adversarial_accuracy_fgsm_at_0.0157": 0.3, "adversarial_accuracy_fgsm": 0.2}
    rows = [
        record("a", metrics={**more, **scores}),
        record("b", [fgsm([0.0157, 0.0314]), temperature("fit")], training={"epochs": 5}),
        record("c", [temperature(1.5)], seed=3),
    ]
    frame = load(write_run(tmp_path, manifest(), rows)).trials()
    metrics = [
        "clean_accuracy", "robust_accuracy", "adversarial_accuracy_fgsm", "membership_auc",
        "adversarial_accuracy_fgsm_at_0.0157",
    ]  # fmt: skip
    assert list(frame.columns) == [
        "trial", "status", "defense", "stale", "masking", "adaptive",
        "fgsm_adversarial_training.eps", "fgsm_adversarial_training.fraction",
        "fgsm_adversarial_training.random_start", "temperature.T",
        "dataset", "model", "seed", "training.epochs",
        *(name + end for name in metrics for end in ("", "_low", "_high")),
        "error",
    ]  # fmt: skip
    assert frame["fgsm_adversarial_training.eps"].tolist()[1] == "0.0157+0.0314"
    assert frame["temperature.T"].tolist()[1:] == ["fit", "1.5"]
    assert frame["defense"].tolist()[0] == "none"
    assert frame["seed"].tolist() == [0, 0, 3]


def test_masking_and_adaptive_are_empty_where_the_record_says_nothing(tmp_path: Path) -> None:
    blind = evasion_notes(adaptive=False, not_adaptive_because=["no gradient"])
    rows = [
        record("a"),
        record("b", [fgsm(0.1)], notes=evasion_notes("noise wins")),
        record("c", [fgsm(0.2)], notes=blind),
    ]
    parquet, csv, front = write_tables(load(write_run(tmp_path, manifest(), rows)))
    frame = pd.read_parquet(parquet)
    assert frame["masking"].isna().tolist() == [True, False, True]
    assert frame["masking"].tolist()[1] == "noise wins"
    assert frame["adaptive"].isna().tolist() == [True, False, False]
    assert frame["adaptive"].tolist()[1:] == [True, False]
    assert pd.read_csv(csv)["masking"].tolist()[1] == "noise wins"
    assert pd.read_csv(front)["trial"].tolist() == ["a"]


def test_a_metric_that_no_trial_has_keeps_its_float_type(tmp_path: Path) -> None:
    missing = {"clean_accuracy": {"value": None, "reason": "no points"}}
    frame = load(write_run(tmp_path, manifest(), [record("a", metrics=missing)])).trials()
    assert frame["clean_accuracy"].dtype == "float64"
    assert frame["robust_accuracy_low"].dtype == "float64"
    assert frame["clean_accuracy"].isna().all()


def test_a_run_without_records_has_the_objectives_as_columns(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), []))
    assert run.metric_names() == ["clean_accuracy", "robust_accuracy", "membership_auc"]
    assert len(run.trials()) == 0
    assert run.trials()["clean_accuracy"].dtype == "float64"


def test_every_readable_record_is_a_row_and_files_read_back(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), demo_records())
    parquet, csv, front = write_tables(load(folder))
    frame = pd.read_parquet(parquet)
    assert len(frame) == len(pd.read_csv(csv)) == 40
    assert frame["status"].value_counts().to_dict() == {"completed": 37, "failed": 2, "stopped": 1}
    assert frame["stale"].sum() == 1
    members = pd.read_csv(front)
    assert 0 < len(members) < 40
    assert list(members.columns)[:5] == ["trial", "status", "defense", "stale", "fronts"]
    assert members["fronts"].str.contains("all").any()
    assert not list(folder.rglob(".*"))
