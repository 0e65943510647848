import torch
import torch.nn.functional as F

from trainables.datasets import augment


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_none_gives_the_batch_itself() -> None:
    images = torch.rand(3, 1, 8, 8)
    assert augment(images, "none", _seeded()) is images


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    images = torch.rand(16, 3, 8, 8, generator=_seeded(5))
    first = augment(images, "crop_flip", _seeded(1))
    assert first.shape == images.shape
    assert torch.equal(first, augment(images, "crop_flip", _seeded(1)))
    assert not torch.equal(first, augment(images, "crop_flip", _seeded(2)))


def test_every_output_is_a_crop_of_the_padded_input_perhaps_flipped() -> None:
    images = torch.rand(40, 2, 6, 7, generator=_seeded(5))
    seen = set()
    for image, output in zip(images, augment(images, "crop_flip", _seeded(1)), strict=True):
        padded = F.pad(image, (4, 4, 4, 4))
        places = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if torch.equal(_crop(padded, top, left, flip), output)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert {flip for _, _, flip in seen} == {False, True}
    assert len({(top, left) for top, left, _ in seen}) > 20


def _crop(padded: torch.Tensor, top: int, left: int, flip: bool) -> torch.Tensor:
    window = padded[:, top : top + 6, left : left + 7]
    return window.flip(-1) if flip else window


def test_every_shift_from_minus_four_to_four_occurs() -> None:
    images = torch.zeros(2000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    moved = augment(images, "crop_flip", _seeded()).flatten(1).argmax(1)
    assert set(moved.tolist()) == set(range(81))
