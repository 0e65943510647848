"""How far a run is."""

from pathlib import Path

from results.records.run import load
from results.sections.status import summary
from tests.results.run_folders import demo_records, manifest, write_run


def test_summary_counts_each_record_once_and_names_the_best(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(trials=60), demo_records())
    (folder / "records" / "broken.json").write_text("{")
    found = summary(load(folder))
    tally = found.counts
    assert (tally.asked, tally.done, tally.failed, tally.stopped, tally.stale, tally.corrupt) == (
        60, 36, 2, 1, 1, 1,
    )  # fmt: skip
    assert [best.metric for best in found.best] == [
        "clean_accuracy", "robust_accuracy", "membership_auc",
    ]  # fmt: skip
    assert found.best[1].value.value == 0.7918
    assert found.front_size > 0
    assert found.hypervolume is not None and 0 < found.hypervolume < 1


def test_summary_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    found = summary(load(write_run(tmp_path, manifest(), [])))
    assert (found.counts.done, found.best, found.front_size, found.hypervolume) == (0, (), 0, 0.0)
