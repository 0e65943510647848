import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from tests.datasets.making import CPU
from trainables.datasets import load_dataset
from trainables.errors import InputError

FILES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
ROWS = 20


def _write(root: Path) -> Path:
    """Write a tiny CIFAR-10 in its real format, pickles; give the folder of the files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in FILES:
        pixels = draw.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        batch = {"data": pixels, "labels": [row % 10 for row in range(ROWS)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": [f"class {k}" for k in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    return folder


def _accept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision accept the tiny files in place of the official ones."""

    def md5(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(name)] for name in FILES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[FILES[5], md5(FILES[5])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5("batches.meta")})


def _error(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset("cifar10", data_dir=root, image_size=None, device=CPU)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_pickles_load_with_the_training_rows_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _write(tmp_path)
    _accept(folder, monkeypatch)
    cifar = load_dataset("cifar10", data_dir=tmp_path, image_size=32, device=CPU)
    assert cifar.images.pixels.shape == (6 * ROWS, 3, 32, 32)
    assert cifar.num_train == 5 * ROWS
    assert cifar.classes[3] == "class 3"
    assert cifar.augmentation == "crop_flip"
    batch = pickle.loads((folder / "test_batch").read_bytes())
    stored = cifar.images.pixels[5 * ROWS :].flatten(1).numpy()
    assert np.array_equal(stored, batch["data"])


def test_a_missing_folder_tells_the_layout(tmp_path: Path) -> None:
    assert "DIR/cifar-10-batches-py/data_batch_1" in _error(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (_write(tmp_path) / name).unlink()
    assert name in _error(tmp_path)


def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    assert "corrupt" in _error(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"<html>", pickle.dumps({"data": 1})])
def test_a_file_that_is_no_batch_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _write(tmp_path)
    (folder / "data_batch_2").write_bytes(content)
    _accept(folder, monkeypatch)
    assert "again" in _error(tmp_path)
