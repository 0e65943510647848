"""A run at a URI, read through a copy: its audit comes with it."""

from pathlib import Path

import pytest

from results.audit.audit import audited
from results.records.run import load
from tests.results.audits import write_demo_audit
from trainables.storage.folders.uris import CACHE_VARIABLE


def test_the_copy_of_a_run_holds_its_audit_and_follows_what_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder = write_demo_audit(tmp_path / "run")
    (folder / "audit" / "notes.json").write_text("{}")
    run = load(folder.as_uri())
    assert run.audit is not None and tmp_path / "cache" in run.audit.path.parents
    assert len(run.audit.records) == 18
    assert not (run.audit.path / "notes.json").exists()
    assert [each.verdict for each in audited(run)].count("verified") == 4

    (folder / "audit" / "records" / "audit1seed2.json").unlink()
    assert audited(load(folder.as_uri()))[1].because == ("only 2 of 3 seeds of its audit count")
    for file in [*(folder / "audit" / "records").iterdir(), folder / "audit" / "manifest.json"]:
        file.unlink()
    assert load(folder.as_uri()).audit is None
