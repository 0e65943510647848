"""Which files of a folder are images of which class and part, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.folders import class_folders, load, official_folders, refusal
from tests.datasets.making import write_images
from trainables.datasets import split_pools
from trainables.errors import InputError


def test_a_folder_of_class_folders_is_one_set_to_split(tmp_path: Path) -> None:
    dataset = load(class_folders(tmp_path))
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
    dataset = load(official_folders(tmp_path))
    assert dataset.num_train == 16
    assert dataset.images.labels.tolist() == [0] * 8 + [1] * 8 + [0, 1]
    train = dataset.images.images(slice(0, 16)).double()
    assert dataset.mean == pytest.approx(train.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert dataset.std == pytest.approx(train.std((0, 2, 3), unbiased=False).tolist(), abs=1e-6)


def test_classes_called_train_and_plane_are_classes(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        write_images(tmp_path / name, 10)
    assert load(tmp_path).classes == ("plane", "train")


def test_hidden_files_and_windows_leftovers_are_ignored(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for place in (tmp_path, tmp_path / "cat"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (place / name).write_bytes(b"no image")
    (tmp_path / ".cache").mkdir()
    assert len(load(tmp_path).images) == 20


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "holds no images" in refusal(tmp_path)


def test_what_is_not_an_image_is_passed_over_and_counted(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for place in ("README.md", "labels.csv", "cat/notes.txt", "cat/more/notes.txt", "dog/a.json"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("not an image")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "000.png").write_bytes(b"not an image")
    dataset = load(tmp_path)
    assert dataset.classes == ("ant", "cat") and len(dataset.images) == 20
    assert dataset.notes == (
        "passed over 4 files without an image (.md, .csv, .txt)",
        "passed over 2 folders without images (more/, dog/)",
    )


def test_an_image_is_known_by_its_content_where_its_ending_says_nothing(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for number, name in enumerate(("photo", "photo.dat")):
        (tmp_path / "cat" / f"{number:03}.png").rename(tmp_path / "cat" / name)
    dataset = load(tmp_path)
    assert len(dataset.images) == 20 and dataset.notes == ()


def test_a_text_file_that_is_called_an_image_is_refused(tmp_path: Path) -> None:
    note = class_folders(tmp_path) / "cat" / "notes.png"
    note.write_text("not an image")
    assert "not an image" in refusal(tmp_path, note)


def test_all_bad_images_are_named_at_once_or_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path, 14)
    bad = [tmp_path / "ant" / "003.png", tmp_path / "cat" / "004.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:-70])  # its header is sound
    bad[1].write_bytes(b"")
    for file in bad:
        assert "of 28 images, 2 bad: " in refusal(tmp_path, file)
    assert "--skip-bad-images" in refusal(tmp_path)
    whole = load(tmp_path, skip_bad_images=True)
    assert whole.images.labels.tolist() == [0] * 13 + [1] * 13
    (note,) = whole.notes
    assert note.startswith("left out 2 bad: ant/003.png (") and "cat/004.png (" in note
    for file in bad:
        file.unlink()
    assert torch.equal(load(tmp_path).images.pixels, whole.images.pixels)


def test_an_error_names_ten_bad_images_and_counts_the_others(tmp_path: Path) -> None:
    class_folders(tmp_path, 14)
    for file in (tmp_path / "cat").iterdir():
        file.write_bytes(b"")
    text = refusal(tmp_path, tmp_path / "cat" / "009.png")
    assert "14 bad" in text and "and 4 more" in text and "010.png" not in text


def test_left_out_images_count_for_the_size_of_a_class(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "cat" / "003.png").write_bytes(b"")
    with pytest.raises(InputError, match="class 'cat' has 9 of the at least 10"):
        load(tmp_path, skip_bad_images=True)


@pytest.mark.parametrize("kept", [0, 4, 30, 100, 180])
def test_a_truncated_image_is_refused(kept: int, tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "cat" / "004.png"
    file.write_bytes(file.read_bytes()[:kept])
    assert "truncated or corrupt" in refusal(tmp_path, file)


def test_a_corrupt_image_is_refused(tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "cat" / "004.png"
    data = bytearray(file.read_bytes())
    data[60:120] = bytes(60)
    file.write_bytes(bytes(data))
    assert "truncated or corrupt" in refusal(tmp_path, file)


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "cat" / "photo.jpg"
    with Image.open(tmp_path / "cat" / "000.png") as image:
        image.save(file)
    file.write_bytes(file.read_bytes()[:-60])
    assert "truncated or corrupt" in refusal(tmp_path, file)


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    link = class_folders(tmp_path) / "cat" / "link.png"
    link.symlink_to(tmp_path / "gone.png")
    assert "replace or remove" in refusal(tmp_path, link)


def test_an_empty_class_is_passed_over(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "dog").mkdir()
    dataset = load(tmp_path)
    assert dataset.classes == ("ant", "cat")
    assert dataset.notes == ("passed over 1 folder without images (dog/)",)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 20)
    assert "only one class" in refusal(tmp_path)


def test_a_single_image_in_a_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 20)
    write_images(tmp_path / "ant", 1)
    assert "class 'ant' has 1 of the at least 10" in refusal(tmp_path)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 1)
    assert "only one class" in refusal(tmp_path)


def test_nine_images_in_a_class_to_split_are_refused(tmp_path: Path) -> None:
    assert "has 9 of the at least 10" in refusal(class_folders(tmp_path, 9))


def test_seven_training_images_in_a_class_are_refused(tmp_path: Path) -> None:
    (official_folders(tmp_path) / "train" / "cat" / "000.png").unlink()
    assert "training set: class 'cat' has 7 of the at least 8" in refusal(tmp_path)


def test_a_class_without_test_images_is_refused(tmp_path: Path) -> None:
    (official_folders(tmp_path) / "test" / "cat" / "000.png").unlink()
    assert "provide at least two" in refusal(tmp_path, tmp_path / "test")
    write_images(tmp_path / "test" / "owl", 1)
    assert "['cat', 'owl'] are in only one of train/ and test/" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("present", "absent"),
    [(["train"], "test/ and val"), (["test"], "train"), (["val", "test"], "train")],
)
def test_parts_without_training_or_without_others_are_refused(
    present: list[str], absent: str, tmp_path: Path
) -> None:
    for name in present:
        class_folders(tmp_path / name)
    assert f"lacks {absent}/" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("Train", "Val", "Test"), ("training", "validation", "testing"), ("train", "valid", "test")],
)
def test_official_parts_are_known_by_their_usual_names(
    names: tuple[str, str, str], tmp_path: Path
) -> None:
    for name, count in zip(names, (12, 3, 2), strict=True):
        class_folders(tmp_path / name, count)
    dataset = load(tmp_path)
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
    class_folders(tmp_path / "train", 20)
    class_folders(tmp_path / "val", 3)
    dataset = load(tmp_path)
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
        class_folders(tmp_path / name / "train", 12)
        class_folders(tmp_path / name / name, 3)
        found.add(load(tmp_path / name).fingerprint)
    assert len(found) == 2


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("train", "Train", "test"):
        class_folders(tmp_path / name, 12)
    assert "join them into one train/" in refusal(tmp_path)


def test_train_and_test_with_images_instead_of_classes_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 20)
    assert "lies directly in" in refusal(tmp_path, tmp_path / "train" / "000.png")


def test_a_third_folder_beside_train_and_test_is_refused(tmp_path: Path) -> None:
    class_folders(official_folders(tmp_path) / "unlabelled")
    assert "in unlabelled/ next to train/" in refusal(tmp_path)


def test_a_folder_without_images_beside_train_and_test_is_passed_over(tmp_path: Path) -> None:
    (official_folders(tmp_path) / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text("{}")
    assert load(tmp_path).notes == ("passed over 1 folder without images (annotations/)",)


def test_class_sets_that_differ_are_refused(tmp_path: Path) -> None:
    write_images(official_folders(tmp_path) / "test" / "dog", 2)
    assert "['dog']" in refusal(tmp_path)


def test_an_image_outside_the_class_folders_is_refused(tmp_path: Path) -> None:
    write_images(class_folders(tmp_path), 1)
    assert "lies directly in" in refusal(tmp_path, tmp_path / "000.png")


def test_a_folder_inside_a_class_is_refused(tmp_path: Path) -> None:
    write_images(class_folders(tmp_path) / "cat" / "more", 1)
    assert "inside a class" in refusal(tmp_path, tmp_path / "cat" / "more")
