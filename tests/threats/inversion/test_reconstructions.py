import pytest
import torch
from torch import Tensor

from tests.making import random_images
from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.inversion.reconstructions import MOST, Likeness, class_references, likeness


def _pool(count: int, seed: int = 0) -> LabelledImages:
    return random_images(count + seed).select(torch.arange(seed, count + seed))


def _like(images: Tensor, classes: Tensor, train: LabelledImages, held: LabelledImages) -> Likeness:
    return likeness(images, classes, class_references(train, held, 10), lambda x: x.flatten(1))


def test_references_are_as_many_of_either_kind_and_never_more_than_the_most() -> None:
    found = class_references(_pool(60), _pool(23), 10)
    assert [one.label for one in found] == list(range(10))
    assert [len(one.training) for one in found] == [3, 3, 3] + 7 * [2]
    assert all(len(one.training) == len(one.held_out) for one in found)
    many = class_references(_pool(10 * MOST + 100), _pool(10 * MOST + 50), 10)
    assert {len(one.training) for one in many} == {MOST}


def test_the_mean_is_of_all_training_images_of_the_class() -> None:
    train = _pool(60)
    third = class_references(train, _pool(10), 10)[3]
    assert torch.allclose(third.mean, train.images()[train.labels == 3].mean(0))


def test_classes_that_a_pool_lacks_are_left_out() -> None:
    train, held = _pool(60), _pool(20)
    some = held.select((held.labels < 4).nonzero().flatten())
    assert [one.label for one in class_references(train, some, 10)] == [0, 1, 2, 3]
    none = held.select(torch.arange(0))
    with pytest.raises(InputError, match="no class"):
        class_references(train, none, 10)


def test_a_copied_training_image_is_at_no_distance_and_an_unseen_one_at_the_whole() -> None:
    train, held = _pool(40), _pool(40, seed=7)
    references = class_references(train, held, 10)
    copies = torch.cat([one.training[:1] for one in references])
    unseen = torch.cat([one.held_out[:1] for one in references])
    classes = torch.arange(10)
    assert _like(copies, classes, train, held).feature_distance.value == 0
    found = _like(unseen, classes, train, held)
    assert found.feature_distance.value == 1 and found.feature_distance.n == 10
    assert found.nearest["held_out"] == 0 and found.nearest["training"] > 0


def test_equal_distances_are_one_half_even_where_both_are_zero() -> None:
    train = _pool(40)
    copies = torch.cat([one.training[:1] for one in class_references(train, train, 10)])
    for images in (copies, torch.zeros_like(copies)):
        assert _like(images, torch.arange(10), train, train).feature_distance.value == 0.5


def test_the_class_mean_is_wholly_like_itself_and_unseen_noise_is_not() -> None:
    train, held = _pool(200), _pool(40, seed=7)
    means = torch.stack([one.mean for one in class_references(train, held, 10)])
    found = _like(means, torch.arange(10), train, held)
    assert found.ssim.value == pytest.approx(1.0)
    assert found.ssim_baseline.value < 0.6
