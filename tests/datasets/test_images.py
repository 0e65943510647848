import torch

from trainables.datasets import LabelledImages


def _images() -> LabelledImages:
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    return LabelledImages(pixels=pixels, labels=torch.tensor([2, 0, 1]), scale=16)


def test_images_are_floats_of_zero_to_one() -> None:
    images = _images()
    assert len(images) == 3
    assert images.images().dtype == torch.float32
    assert torch.equal(images.images(), images.pixels.float() / 16)


def test_an_index_or_a_slice_gives_a_batch() -> None:
    images = _images()
    assert torch.equal(images.images(torch.tensor([2, 0])), images.images()[[2, 0]])
    assert torch.equal(images.images(slice(1, 3)), images.images()[1:3])


def test_selected_rows_keep_their_labels_and_scale() -> None:
    selected = _images().select(torch.tensor([2, 0]))
    assert selected.labels.tolist() == [1, 2]
    assert selected.scale == 16
    assert selected.pixels[0].flatten().tolist() == [8, 9, 10, 11]


def test_images_move_to_a_device_with_their_labels() -> None:
    moved = _images().to("meta")
    assert moved.pixels.device.type == moved.labels.device.type == "meta"
