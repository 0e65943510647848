"""A launch on images that were replaced: refused, or begun again where that is accepted."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.making import write_images
from tests.orchestrator.command_line import run

SPACE = """
name: photos
description: two trials on a folder
scenarios: [{{dataset: "folder:{photos}", model: small_cnn, training: {{epochs: 1}}}}]
defenses: {{temperature: {{T: [1.0, 1.5, 2.0, 3.0]}}}}
first: [{{}}]
threats: {{}}
objectives: [clean_accuracy]
search: {{algorithm: grid}}
"""


def replace_by_noise(photos: Path) -> None:
    """Replace every image by noise, under the same name, size and date."""
    for file in photos.glob("*/*.png"):
        before = file.stat()
        noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
def test_replaced_images_are_noticed_refused_and_accepted(tmp_path: Path) -> None:
    for name in ("ant", "cat"):
        write_images(tmp_path / "photos" / name, 20)
    space = tmp_path / "photos.yaml"
    space.write_text(SPACE.format(photos=tmp_path / "photos"))
    asked = ("launch", "--space", str(space), "--no-audit", "--runs", str(tmp_path / "runs"))
    first = run(*asked, "--trials", "2")
    assert first.returncode == 0, first.stderr
    assert "Data: photos, 40 images of 2 classes, fingerprint " in first.stdout
    records = tmp_path / "runs" / "photos" / "records"
    begun = {file.name for file in records.iterdir()}
    replace_by_noise(tmp_path / "photos")
    refused = run(*asked, "--trials", "2")  # all of them are recorded
    assert refused.returncode == 2, refused.stdout
    assert "the images of folder:" in refused.stderr and "--accept-changes" in refused.stderr
    assert {file.name for file in records.iterdir()} == begun
    accepted = run(*asked, "--trials", "2", "--accept-changes")
    assert accepted.returncode == 0, accepted.stderr
    assert "2 records set aside, its trials start again" in accepted.stdout
    now = {file.name for file in records.iterdir()}
    assert {name for name in now if name.endswith(".superseded-start")} == {
        f"{name}.superseded-start" for name in begun
    }
    assert len(now) == 4 and not begun & now
