from pathlib import Path

import numpy as np

from results.records.run import load
from results.sections.attacked_images import attacked_images, draw_images
from tests.results.run_folders import (
    ATTACK_METRICS,
    attacked_records,
    demo_records,
    manifest,
    picture_notes,
    write_run,
)


def test_images_of_a_record_are_shown_before_and_after_the_attack(tmp_path: Path) -> None:
    rows = attacked_records()
    rows[0]["notes"]["evasion"]["pictures"] = picture_notes((3, 8))
    run = load(write_run(tmp_path, manifest(metrics=ATTACK_METRICS), rows))
    shown = [record for record in run.usable if record.trial == rows[0]["trial"]]
    other = [record for record in run.usable if record.trial != rows[0]["trial"]][:1]
    info = attacked_images(run, shown + other)
    assert info is not None and len(info.rows) == 3
    (_, clean), (title, attacked), (_, elsewhere) = info.rows
    assert title.startswith("under pgd: ") and shown[0].label in title
    assert [image.answer for image in clean] == [3, 3]
    assert [image.answer for image in attacked] == [3, 8]
    assert [image.answer for image in elsewhere] == [3, -1]
    assert clean[0].pixels.shape == (4, 4, 1) and int(clean[0].pixels.max()) == 10
    assert np.all(attacked[0].pixels == 200)
    texts = [text.get_text() for axes in draw_images(info).axes for text in axes.texts]
    assert texts == ["3", "3", "3", "8 (is 3)", "3", "rejected"]


def test_records_without_images_give_no_figure(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), demo_records()))
    assert attacked_images(run, run.usable) is None
