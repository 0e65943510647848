import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.making import CPU, real_data, write_images
from trainables.datasets import Dataset, load_dataset, split_pools
from trainables.errors import InputError


def _load(path: Path, image_size: int | None = None) -> Dataset:
    return load_dataset(f"folder:{path}", data_dir=None, image_size=image_size, device=CPU)


def _error(path: Path, culprit: Path | None = None, image_size: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        _load(path, image_size)
    assert "\n" not in str(caught.value)
    assert str(culprit or path) in str(caught.value)
    return str(caught.value)


def _classes(path: Path, count: int = 10, *, mode: str = "RGB") -> Path:
    for name in ("cat", "ant"):
        write_images(path / name, count, mode=mode)
    return path


def _official(path: Path) -> Path:
    _classes(path / "train", 8)
    _classes(path / "test", 1)
    return path


def test_a_folder_of_class_folders_is_one_set_to_split(tmp_path: Path) -> None:
    dataset = _load(_classes(tmp_path))
    assert dataset.classes == ("ant", "cat")
    assert dataset.shape == (3, 8, 8)
    assert dataset.num_train is None
    assert dataset.images.labels.tolist() == [0] * 10 + [1] * 10
    assert dataset.title == tmp_path.name
    stored = np.asarray(Image.open(tmp_path / "cat" / "003.png")).transpose(2, 0, 1)
    assert np.array_equal(dataset.images.pixels[13].numpy(), stored)
    for pool in (split_pools(dataset).train, split_pools(dataset).test):
        assert set(pool.labels.tolist()) == {0, 1}


def test_train_and_test_folders_are_the_official_sets(tmp_path: Path) -> None:
    dataset = _load(_official(tmp_path))
    assert dataset.num_train == 16
    assert dataset.images.labels.tolist() == [0] * 8 + [1] * 8 + [0, 1]
    train = dataset.images.images(slice(0, 16)).double()
    assert dataset.mean == pytest.approx(train.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert dataset.std == pytest.approx(train.std((0, 2, 3), unbiased=False).tolist(), abs=1e-6)


def test_classes_called_train_and_plane_are_classes(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        write_images(tmp_path / name, 10)
    assert _load(tmp_path).classes == ("plane", "train")


def test_hidden_files_and_windows_leftovers_are_ignored(tmp_path: Path) -> None:
    _classes(tmp_path)
    for place in (tmp_path, tmp_path / "cat"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (place / name).write_bytes(b"no image")
    (tmp_path / ".cache").mkdir()
    assert len(_load(tmp_path).images) == 20


def test_images_are_resized_to_a_square_with_antialiasing(tmp_path: Path) -> None:
    _classes(tmp_path)
    write_images(tmp_path / "cat", 10, size=(40, 24))
    dataset = _load(tmp_path, 12)
    assert dataset.shape == (3, 12, 12)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        expected = np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images.pixels[10].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_a_folder_of_grey_images_has_one_channel(mode: str, tmp_path: Path) -> None:
    dataset = _load(_classes(tmp_path, mode=mode))
    assert dataset.shape == (1, 8, 8)
    with Image.open(tmp_path / "ant" / "000.png") as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), expected)


def test_sixteen_bit_grey_keeps_its_levels(tmp_path: Path) -> None:
    _classes(tmp_path, mode="L")
    ramp = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ant" / "000.png")
    dataset = _load(tmp_path)
    assert dataset.shape == (1, 8, 8)
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), (ramp // 257).astype(np.uint8))


def test_one_colour_image_makes_the_folder_rgb(tmp_path: Path) -> None:
    _classes(tmp_path, mode="L")
    write_images(tmp_path / "cat", 1, mode="RGB")
    dataset = _load(tmp_path)
    assert dataset.shape == (3, 8, 8)
    grey = dataset.images.pixels[0]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])


@pytest.mark.parametrize(("mode", "ending"), [("RGBA", "png"), ("P", "png"), ("CMYK", "tiff")])
def test_other_colour_modes_become_rgb(mode: str, ending: str, tmp_path: Path) -> None:
    _classes(tmp_path)
    file = tmp_path / "ant" / f"000.{ending}"
    (tmp_path / "ant" / "000.png").unlink()
    colour = Image.new("RGB", (8, 8), (255, 0, 51)).convert(mode)
    colour.save(file)
    dataset = _load(tmp_path)
    assert dataset.images.pixels[0, :, 4, 4].tolist() == pytest.approx([255, 0, 51], abs=2)


def test_a_transparent_palette_gives_no_warning(tmp_path: Path) -> None:
    _classes(tmp_path)
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 51, 0, 0, 0])
    image.save(tmp_path / "ant" / "000.png", transparency=b"\x80\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _load(tmp_path).images.pixels[0, :, 0, 0].tolist() == [255, 0, 51]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in _error(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in _error(tmp_path / "file")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "is empty" in _error(tmp_path)


def test_a_text_file_in_a_class_is_refused(tmp_path: Path) -> None:
    note = _classes(tmp_path) / "cat" / "notes.txt"
    note.write_text("not an image")
    assert "is not an image" in _error(tmp_path, note)


@pytest.mark.parametrize("kept", [0, 4, 30, 100, 180])
def test_a_truncated_image_is_refused(kept: int, tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "004.png"
    file.write_bytes(file.read_bytes()[:kept])
    assert "truncated or corrupt" in _error(tmp_path, file)


def test_a_corrupt_image_is_refused(tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "004.png"
    data = bytearray(file.read_bytes())
    data[60:120] = bytes(60)
    file.write_bytes(bytes(data))
    assert "truncated or corrupt" in _error(tmp_path, file)


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "photo.jpg"
    with Image.open(tmp_path / "cat" / "000.png") as image:
        image.save(file)
    file.write_bytes(file.read_bytes()[:-60])
    assert "truncated or corrupt" in _error(tmp_path, file)


def test_an_image_that_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    assert "pixels" in _error(_classes(tmp_path), tmp_path / "ant" / "000.png")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "wide.tiff"
    Image.new("F", (8, 8)).save(file)
    assert "8-bit" in _error(tmp_path, file)


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    link = _classes(tmp_path) / "cat" / "link.png"
    link.symlink_to(tmp_path / "gone.png")
    assert "replace or remove" in _error(tmp_path, link)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    (_classes(tmp_path) / "dog").mkdir()
    assert "no images" in _error(tmp_path, tmp_path / "dog")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 20)
    assert "only one class" in _error(tmp_path)


def test_a_single_image_in_a_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 20)
    write_images(tmp_path / "ant", 1)
    assert "class 'ant' has 1 of the at least 10" in _error(tmp_path)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 1)
    assert "only one class" in _error(tmp_path)


def test_nine_images_in_a_class_to_split_are_refused(tmp_path: Path) -> None:
    assert "has 9 of the at least 10" in _error(_classes(tmp_path, 9))


def test_seven_training_images_in_a_class_are_refused(tmp_path: Path) -> None:
    (_official(tmp_path) / "train" / "cat" / "000.png").unlink()
    assert "training set: class 'cat' has 7 of the at least 8" in _error(tmp_path)


def test_a_class_without_test_images_is_refused(tmp_path: Path) -> None:
    (_official(tmp_path) / "test" / "cat" / "000.png").unlink()
    assert "no images" in _error(tmp_path, tmp_path / "test" / "cat")


@pytest.mark.parametrize(("present", "absent"), [("train", "test"), ("test", "train")])
def test_only_one_of_train_and_test_is_refused(present: str, absent: str, tmp_path: Path) -> None:
    _classes(tmp_path / present)
    assert f"lacks {absent}/" in _error(tmp_path)


def test_train_and_test_with_images_instead_of_classes_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 20)
    assert "lies directly in" in _error(tmp_path, tmp_path / "train" / "000.png")


def test_a_third_folder_beside_train_and_test_is_refused(tmp_path: Path) -> None:
    _classes(_official(tmp_path) / "val")
    assert "val/ next to" in _error(tmp_path)


def test_class_sets_that_differ_are_refused(tmp_path: Path) -> None:
    write_images(_official(tmp_path) / "test" / "dog", 2)
    assert "['dog']" in _error(tmp_path)


def test_an_image_outside_the_class_folders_is_refused(tmp_path: Path) -> None:
    write_images(_classes(tmp_path), 1)
    assert "lies directly in" in _error(tmp_path, tmp_path / "000.png")


def test_a_folder_inside_a_class_is_refused(tmp_path: Path) -> None:
    write_images(_classes(tmp_path) / "cat" / "more", 1)
    assert "inside a class" in _error(tmp_path, tmp_path / "cat" / "more")


@pytest.mark.parametrize("size", [(9, 9), (8, 9)])
def test_mixed_sizes_need_an_image_size(size: tuple[int, int], tmp_path: Path) -> None:
    write_images(_classes(tmp_path) / "cat", 2, size=size)
    assert "--image-size" in _error(tmp_path)
    assert _load(tmp_path, 8).shape == (3, 8, 8)


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
def test_sizes_that_no_model_takes_need_an_image_size(
    size: tuple[int, int], tmp_path: Path
) -> None:
    for name in ("cat", "ant"):
        write_images(tmp_path / name, 10, size=size)
    assert "--image-size" in _error(tmp_path)


def test_real_cifar10_images_load_from_a_folder() -> None:
    root = real_data("cifar10-5k")
    dataset = _load(root / "cifar10-5k")
    assert dataset.images.pixels.shape == (5000, 3, 32, 32)
    assert dataset.num_train == 4000
    assert dataset.classes[0] == "airplane" and dataset.num_classes == 10
    assert dataset.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
    assert dataset.std == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.01)
