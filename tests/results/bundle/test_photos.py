from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from results.bundle import load
from results.bundle.photos import pixels_of
from tests.results.bundles import make_bundle
from trainables.datasets.dataset import LoadOptions, Resize
from trainables.datasets.folder import load_folder
from trainables.device import CPU

SHAPE = (3, 16, 16)


def _photos(folder: Path) -> list[Path]:
    """Write lying, transparent and odd-sized pictures of two classes."""
    rng = np.random.default_rng(0)
    files = []
    for row in range(24):
        name = folder / "train" / "ab"[row % 2] / f"{row:02}.png"
        test = folder / "test" / "ab"[row % 2] / f"{row:02}.png"
        channels = 4 if row % 3 == 0 else 3
        size = (20 + row, 33, channels)
        image = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if row % 4 == 0 else 1
        for file in (name, test):
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, exif=exif)
        files.append(name)
    return sorted(files)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_files_become_what_training_saw(resize: Resize, tmp_path: Path) -> None:
    files = _photos(tmp_path)
    options = LoadOptions(path=tmp_path, image_size=16, resize=resize, device=CPU)
    trained = load_folder(options).images.images()[: len(files)]
    found = pixels_of(files, SHAPE, resize)
    torch.testing.assert_close(found, trained, atol=1e-6, rtol=0)
    opened = pixels_of([Image.open(file) for file in files], SHAPE, resize)
    torch.testing.assert_close(opened, trained, atol=1e-6, rtol=0)


def test_arrays_of_all_layouts_are_the_same_pixels() -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    last = pixels_of(bytes_, SHAPE, "crop")
    assert last.shape == (2, *SHAPE)
    for other in (bytes_.transpose(0, 3, 1, 2), torch.from_numpy(bytes_), list(bytes_)):
        assert torch.equal(pixels_of(other, SHAPE, "crop"), last)
    floats = pixels_of(bytes_ / 255, SHAPE, "crop")
    # Resized bytes are rounded, once in each direction; floats are not.
    torch.testing.assert_close(floats, last, atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("nowhere.png", "no such file"),
        ([], "no image"),
        (np.full((20, 20, 3), 7.0), r"\[0, 1\]"),
        (np.full((20, 20, 3), np.nan), r"\[0, 1\]"),
        (np.zeros((20, 20, 3), dtype=np.int64), "uint8"),
        (np.zeros((5, 20, 20), dtype=np.uint8), "where are the channels"),
        ([3], "int"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(images: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        pixels_of(images, SHAPE, "crop")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_bundle_answers_pictures_with_names(tmp_path: Path, artefact_folder: Path) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder)
    model = load(made.folder)
    photo = np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    answers = model.predict([photo, Image.fromarray(photo), tmp_path / "photo.png"])
    expected = model.probabilities(model.prepare(photo))
    torch.testing.assert_close(answers.log_probabilities.exp(), expected.expand(3, -1))
    torch.testing.assert_close(answers.probability, expected.max(1).values.expand(3))
    assert answers.names == [model.dataset.classes[int(expected.argmax())]] * 3
    assert not answers.rejected.any() and answers.radius is None
