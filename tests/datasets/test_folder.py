import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from tests.datasets.making import CPU, real_data, write_images
from trainables.datasets import Dataset, load_dataset, split_pools
from trainables.errors import InputError


def _load(path: Path, image_size: int | None = None, **options: Any) -> Dataset:
    return load_dataset(
        f"folder:{path}", data_dir=None, image_size=image_size, device=CPU, **options
    )


def _error(path: Path, culprit: Path | None = None, image_size: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        _load(path, image_size)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert culprit is None or str(culprit.relative_to(path)) in str(caught.value)
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
    dataset = _load(tmp_path, 12, resize="squash")
    assert dataset.shape == (3, 12, 12)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        expected = np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images.pixels[10].permute(1, 2, 0).numpy(), expected)
    assert dataset.notes == ("squashed 10 non-square images at 12x12",)


@pytest.mark.parametrize("size", [(40, 24), (24, 41), (30, 12), (13, 12)])
def test_the_centre_of_an_image_that_is_not_square_is_kept(
    size: tuple[int, int], tmp_path: Path
) -> None:
    _classes(tmp_path)
    write_images(tmp_path / "cat", 10, size=size)
    dataset = _load(tmp_path, 12)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        expected = np.asarray(transforms.CenterCrop(12)(transforms.Resize(12)(image)))
    assert np.array_equal(dataset.images.pixels[10].permute(1, 2, 0).numpy(), expected)
    assert dataset.notes == ("kept the centre of 10 non-square images at 12x12",)


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
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), np.rint(ramp / 257))
    assert dataset.notes == ("read 16-bit grey levels (the largest is 65520) as [0, 65535]",)


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
        # Half of red on white.
        assert _load(tmp_path).images.pixels[0, :, 0, 0].tolist() == [255, 127, 153]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in _error(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in _error(tmp_path / "file")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "holds no images" in _error(tmp_path)


def test_what_is_not_an_image_is_passed_over_and_counted(tmp_path: Path) -> None:
    _classes(tmp_path)
    for place in ("README.md", "labels.csv", "cat/notes.txt", "cat/more/notes.txt", "dog/a.json"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("not an image")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "000.png").write_bytes(b"not an image")
    dataset = _load(tmp_path)
    assert dataset.classes == ("ant", "cat") and len(dataset.images) == 20
    assert dataset.notes == (
        "passed over 4 files without an image (.md, .csv, .txt)",
        "passed over 2 folders without images (more/, dog/)",
    )


def test_an_image_is_known_by_its_content_where_its_ending_says_nothing(tmp_path: Path) -> None:
    _classes(tmp_path)
    for number, name in enumerate(("photo", "photo.dat")):
        (tmp_path / "cat" / f"{number:03}.png").rename(tmp_path / "cat" / name)
    dataset = _load(tmp_path)
    assert len(dataset.images) == 20 and dataset.notes == ()


def test_a_text_file_that_is_called_an_image_is_refused(tmp_path: Path) -> None:
    note = _classes(tmp_path) / "cat" / "notes.png"
    note.write_text("not an image")
    assert "not an image" in _error(tmp_path, note)


def test_all_bad_images_are_named_at_once_or_left_out(tmp_path: Path) -> None:
    _classes(tmp_path, 14)
    bad = [tmp_path / "ant" / "003.png", tmp_path / "cat" / "004.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:-70])  # its header is sound
    bad[1].write_bytes(b"")
    for file in bad:
        assert "of 28 images, 2 bad: " in _error(tmp_path, file)
    assert "--skip-bad-images" in _error(tmp_path)
    whole = _load(tmp_path, skip_bad_images=True)
    assert whole.images.labels.tolist() == [0] * 13 + [1] * 13
    (note,) = whole.notes
    assert note.startswith("left out 2 bad: ant/003.png (") and "cat/004.png (" in note
    for file in bad:
        file.unlink()
    assert torch.equal(_load(tmp_path).images.pixels, whole.images.pixels)


def test_an_error_names_ten_bad_images_and_counts_the_others(tmp_path: Path) -> None:
    _classes(tmp_path, 14)
    for file in (tmp_path / "cat").iterdir():
        file.write_bytes(b"")
    text = _error(tmp_path, tmp_path / "cat" / "009.png")
    assert "14 bad" in text and "and 4 more" in text and "010.png" not in text


def test_left_out_images_count_for_the_size_of_a_class(tmp_path: Path) -> None:
    (_classes(tmp_path) / "cat" / "003.png").write_bytes(b"")
    with pytest.raises(InputError, match="class 'cat' has 9 of the at least 10"):
        _load(tmp_path, skip_bad_images=True)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_loaded_upright(orientation: int, tmp_path: Path) -> None:
    _classes(tmp_path)
    tag = Image.Exif()
    tag[0x0112] = orientation
    corners = np.zeros((8, 8, 3), np.uint8)
    corners[:4, :4], corners[:4, 4:], corners[4:, :4] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(corners).save(tmp_path / "ant" / "000.png", exif=tag)
    dataset = _load(tmp_path)
    with Image.open(tmp_path / "ant" / "000.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(dataset.images.pixels[0].permute(1, 2, 0).numpy(), upright)
    assert np.array_equal(upright, corners) == (orientation == 1)
    assert any("upright" in note for note in dataset.notes) == (orientation != 1)


def test_a_photo_that_was_stored_lying_keeps_its_sides_in_order(tmp_path: Path) -> None:
    """A 40x24 photo with orientation 6 is 24x40: its short side is the stored height."""
    _classes(tmp_path)
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(write_images(tmp_path / "drawn", 1, size=(40, 24)) / "000.png") as image:
        stored = image.copy()
    shutil.rmtree(tmp_path / "drawn")
    stored.save(tmp_path / "ant" / "000.jpg", exif=tag, quality=100, subsampling=0)
    dataset = _load(tmp_path, 12)
    with Image.open(tmp_path / "ant" / "000.jpg") as image:
        upright = ImageOps.exif_transpose(image)
    assert upright.size == (24, 40)
    expected = np.asarray(transforms.CenterCrop(12)(transforms.Resize(12)(upright)))
    row = sorted(file.name for file in (tmp_path / "ant").iterdir()).index("000.jpg")
    assert np.array_equal(dataset.images.pixels[row].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("bits", "kind"), [(8, np.uint16), (10, np.uint16), (12, np.uint16), (14, np.uint16),
                       (16, np.uint16), (16, np.int32), (24, np.int32)]
)  # fmt: skip
def test_grey_levels_fill_their_range_whatever_file_they_are_in(
    bits: int, kind: type, tmp_path: Path
) -> None:
    """A 12-bit image in a 16-bit file kept 16 grey levels; 24 bits in 32 became black and white."""
    ramp = np.arange(256).reshape(16, 16)
    for name in ("ant", "cat"):
        (tmp_path / name).mkdir()
        for number in range(10):
            wide = ramp * (2**bits - 1) // 255
            Image.fromarray(wide.astype(kind)).save(tmp_path / name / f"{number}.tif")
    dataset = _load(tmp_path)
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), ramp)
    assert f"read {bits}-bit grey levels" in dataset.notes[0]


def test_a_declared_range_counts_before_the_values_that_are_found(tmp_path: Path) -> None:
    _classes(tmp_path, mode="L")
    dark = np.full((8, 8), 1000, np.uint16)
    file = tmp_path / "ant" / "000.tif"
    (tmp_path / "ant" / "000.png").unlink()
    Image.fromarray(dark).save(file, tiffinfo={281: 4000})
    dataset = _load(tmp_path)
    assert set(dataset.images.pixels[0].flatten().tolist()) == {64}  # 255 / 4
    assert dataset.notes == ("read 1 image by the peak that they declare (4000)",)


def test_negative_pixels_are_refused(tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "wide.tif"
    Image.fromarray(np.full((8, 8), -1, np.int32)).save(file)
    assert "negative" in _error(tmp_path, file)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str, tmp_path: Path) -> None:
    _classes(tmp_path, mode=mode[:-1])
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.paste((0, 0, 0, 51), (4, 0, 6, 8))
    image.convert(mode).save(tmp_path / "ant" / "000.png")
    dataset = _load(tmp_path)
    assert dataset.shape[0] == len(mode) - 1
    assert (
        dataset.images.pixels[0, :, 0].tolist()
        == [[255] * 4 + [204] * 2 + [0] * 2] * dataset.shape[0]
    )
    assert dataset.notes == ("composed 1 image with transparency on white",)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    file = _classes(tmp_path) / "cat" / "wide.tiff"
    Image.new("F", (8, 8)).save(file)
    assert "8-bit" in _error(tmp_path, file)


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    link = _classes(tmp_path) / "cat" / "link.png"
    link.symlink_to(tmp_path / "gone.png")
    assert "replace or remove" in _error(tmp_path, link)


def test_an_empty_class_is_passed_over(tmp_path: Path) -> None:
    (_classes(tmp_path) / "dog").mkdir()
    dataset = _load(tmp_path)
    assert dataset.classes == ("ant", "cat")
    assert dataset.notes == ("passed over 1 folder without images (dog/)",)


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
    assert "provide at least two" in _error(tmp_path, tmp_path / "test")
    write_images(tmp_path / "test" / "owl", 1)
    assert "['cat', 'owl'] are in only one of train/ and test/" in _error(tmp_path)


@pytest.mark.parametrize(
    ("present", "absent"),
    [(["train"], "test/ and val"), (["test"], "train"), (["val", "test"], "train")],
)
def test_parts_without_training_or_without_others_are_refused(
    present: list[str], absent: str, tmp_path: Path
) -> None:
    for name in present:
        _classes(tmp_path / name)
    assert f"lacks {absent}/" in _error(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("Train", "Val", "Test"), ("training", "validation", "testing"), ("train", "valid", "test")],
)
def test_official_parts_are_known_by_their_usual_names(
    names: tuple[str, str, str], tmp_path: Path
) -> None:
    for name, count in zip(names, (12, 3, 2), strict=True):
        _classes(tmp_path / name, count)
    dataset = _load(tmp_path)
    assert (dataset.num_train, dataset.num_validation, len(dataset.images)) == (24, 6, 34)
    pools = split_pools(dataset)
    assert pools.validation is not None and pools.calibration is not None
    assert torch.equal(pools.validation.pixels, dataset.images.pixels[24:30])
    assert torch.equal(pools.test.pixels, dataset.images.pixels[30:])
    published = split_pools(dataset, "published")
    assert torch.equal(published.train.pixels, dataset.images.pixels[:24])
    deployed = split_pools(dataset, "deployment")
    assert len(deployed.train) == 30 - len(pools.calibration)


def test_without_a_test_set_its_pool_comes_out_of_the_training_rows(tmp_path: Path) -> None:
    _classes(tmp_path / "train", 20)
    _classes(tmp_path / "val", 3)
    dataset = _load(tmp_path)
    assert (dataset.num_train, dataset.num_validation, len(dataset.images)) == (40, 6, 46)
    pools = split_pools(dataset)
    assert pools.validation is not None
    assert torch.equal(pools.validation.pixels, dataset.images.pixels[40:])
    assert len(pools.test) == 7  # 15 of 85 %, of both classes
    assert set(pools.test.labels.tolist()) == {0, 1}
    assert int(pools.train_index.max()) < 40
    assert len(split_pools(dataset, "published").train) == 40 - len(pools.test)


def test_a_validation_set_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    found = set()
    for name in ("val", "test"):
        _classes(tmp_path / name / "train", 12)
        _classes(tmp_path / name / name, 3)
        found.add(_load(tmp_path / name).fingerprint)
    assert len(found) == 2


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("train", "Train", "test"):
        _classes(tmp_path / name, 12)
    assert "join them into one train/" in _error(tmp_path)


def test_train_and_test_with_images_instead_of_classes_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 20)
    assert "lies directly in" in _error(tmp_path, tmp_path / "train" / "000.png")


def test_a_third_folder_beside_train_and_test_is_refused(tmp_path: Path) -> None:
    _classes(_official(tmp_path) / "unlabelled")
    assert "in unlabelled/ next to train/" in _error(tmp_path)


def test_a_folder_without_images_beside_train_and_test_is_passed_over(tmp_path: Path) -> None:
    (_official(tmp_path) / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text("{}")
    assert _load(tmp_path).notes == ("passed over 1 folder without images (annotations/)",)


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
