"""What becomes of the images of a folder: their side, their depth, their colours."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from tests.datasets.folders import class_folders, load, refusal
from tests.datasets.making import real_data, write_images


def test_images_are_resized_to_a_square_with_antialiasing(tmp_path: Path) -> None:
    class_folders(tmp_path)
    write_images(tmp_path / "cat", 10, size=(40, 24))
    dataset = load(tmp_path, 12, resize="squash")
    assert dataset.shape == (3, 12, 12)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        expected = np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images.pixels[10].permute(1, 2, 0).numpy(), expected)
    assert dataset.notes == ("squashed 10 non-square images at 12x12",)


@pytest.mark.parametrize("size", [(40, 24), (24, 41), (30, 12), (13, 12)])
def test_the_centre_of_an_image_that_is_not_square_is_kept(
    size: tuple[int, int], tmp_path: Path
) -> None:
    class_folders(tmp_path)
    write_images(tmp_path / "cat", 10, size=size)
    dataset = load(tmp_path, 12)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        expected = np.asarray(transforms.CenterCrop(12)(transforms.Resize(12)(image)))
    assert np.array_equal(dataset.images.pixels[10].permute(1, 2, 0).numpy(), expected)
    assert dataset.notes == ("kept the centre of 10 non-square images at 12x12",)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_a_folder_of_grey_images_has_one_channel(mode: str, tmp_path: Path) -> None:
    dataset = load(class_folders(tmp_path, mode=mode))
    assert dataset.shape == (1, 8, 8)
    with Image.open(tmp_path / "ant" / "000.png") as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), expected)


def test_sixteen_bit_grey_keeps_its_levels(tmp_path: Path) -> None:
    class_folders(tmp_path, mode="L")
    ramp = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ant" / "000.png")
    dataset = load(tmp_path)
    assert dataset.shape == (1, 8, 8)
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), np.rint(ramp / 257))
    assert dataset.notes == ("read 16-bit grey levels (the largest is 65520) as [0, 65535]",)


def test_one_colour_image_makes_the_folder_rgb(tmp_path: Path) -> None:
    class_folders(tmp_path, mode="L")
    write_images(tmp_path / "cat", 1, mode="RGB")
    dataset = load(tmp_path)
    assert dataset.shape == (3, 8, 8)
    grey = dataset.images.pixels[0]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])


@pytest.mark.parametrize(("mode", "ending"), [("RGBA", "png"), ("P", "png"), ("CMYK", "tiff")])
def test_other_colour_modes_become_rgb(mode: str, ending: str, tmp_path: Path) -> None:
    class_folders(tmp_path)
    file = tmp_path / "ant" / f"000.{ending}"
    (tmp_path / "ant" / "000.png").unlink()
    colour = Image.new("RGB", (8, 8), (255, 0, 51)).convert(mode)
    colour.save(file)
    dataset = load(tmp_path)
    assert dataset.images.pixels[0, :, 4, 4].tolist() == pytest.approx([255, 0, 51], abs=2)


def test_a_transparent_palette_gives_no_warning(tmp_path: Path) -> None:
    class_folders(tmp_path)
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 51, 0, 0, 0])
    image.save(tmp_path / "ant" / "000.png", transparency=b"\x80\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Half of red on white.
        assert load(tmp_path).images.pixels[0, :, 0, 0].tolist() == [255, 127, 153]


def test_an_image_that_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    assert "pixels" in refusal(class_folders(tmp_path), tmp_path / "ant" / "000.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_loaded_upright(orientation: int, tmp_path: Path) -> None:
    class_folders(tmp_path)
    tag = Image.Exif()
    tag[0x0112] = orientation
    corners = np.zeros((8, 8, 3), np.uint8)
    corners[:4, :4], corners[:4, 4:], corners[4:, :4] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(corners).save(tmp_path / "ant" / "000.png", exif=tag)
    dataset = load(tmp_path)
    with Image.open(tmp_path / "ant" / "000.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(dataset.images.pixels[0].permute(1, 2, 0).numpy(), upright)
    assert np.array_equal(upright, corners) == (orientation == 1)
    assert any("upright" in note for note in dataset.notes) == (orientation != 1)


def test_a_photo_that_was_stored_lying_keeps_its_sides_in_order(tmp_path: Path) -> None:
    """A 40x24 photo with orientation 6 is 24x40: its short side is the stored height."""
    class_folders(tmp_path)
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(write_images(tmp_path / "drawn", 1, size=(40, 24)) / "000.png") as image:
        stored = image.copy()
    shutil.rmtree(tmp_path / "drawn")
    stored.save(tmp_path / "ant" / "000.jpg", exif=tag, quality=100, subsampling=0)
    dataset = load(tmp_path, 12)
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
    dataset = load(tmp_path)
    assert np.array_equal(dataset.images.pixels[0, 0].numpy(), ramp)
    assert f"read {bits}-bit grey levels" in dataset.notes[0]


def test_a_declared_range_counts_before_the_values_that_are_found(tmp_path: Path) -> None:
    class_folders(tmp_path, mode="L")
    dark = np.full((8, 8), 1000, np.uint16)
    file = tmp_path / "ant" / "000.tif"
    (tmp_path / "ant" / "000.png").unlink()
    Image.fromarray(dark).save(file, tiffinfo={281: 4000})
    dataset = load(tmp_path)
    assert set(dataset.images.pixels[0].flatten().tolist()) == {64}  # 255 / 4
    assert dataset.notes == ("read 1 image by the peak that they declare (4000)",)


def test_negative_pixels_are_refused(tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "cat" / "wide.tif"
    Image.fromarray(np.full((8, 8), -1, np.int32)).save(file)
    assert "negative" in refusal(tmp_path, file)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str, tmp_path: Path) -> None:
    class_folders(tmp_path, mode=mode[:-1])
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.paste((0, 0, 0, 51), (4, 0, 6, 8))
    image.convert(mode).save(tmp_path / "ant" / "000.png")
    dataset = load(tmp_path)
    assert dataset.shape[0] == len(mode) - 1
    assert (
        dataset.images.pixels[0, :, 0].tolist()
        == [[255] * 4 + [204] * 2 + [0] * 2] * dataset.shape[0]
    )
    assert dataset.notes == ("composed 1 image with transparency on white",)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "cat" / "wide.tiff"
    Image.new("F", (8, 8)).save(file)
    assert "8-bit" in refusal(tmp_path, file)


@pytest.mark.parametrize("size", [(9, 9), (8, 9)])
def test_mixed_sizes_need_an_image_size(size: tuple[int, int], tmp_path: Path) -> None:
    write_images(class_folders(tmp_path) / "cat", 2, size=size)
    assert "--image-size" in refusal(tmp_path)
    assert load(tmp_path, 8).shape == (3, 8, 8)


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
def test_sizes_that_no_model_takes_need_an_image_size(
    size: tuple[int, int], tmp_path: Path
) -> None:
    for name in ("cat", "ant"):
        write_images(tmp_path / name, 10, size=size)
    assert "--image-size" in refusal(tmp_path)


def test_real_cifar10_images_load_from_a_folder() -> None:
    root = real_data("cifar10-5k")
    dataset = load(root / "cifar10-5k")
    assert dataset.images.pixels.shape == (5000, 3, 32, 32)
    assert dataset.num_train == 4000
    assert dataset.classes[0] == "airplane" and dataset.num_classes == 10
    assert dataset.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
    assert dataset.std == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.01)
