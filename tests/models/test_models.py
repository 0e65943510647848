"""The contract, run on every model of the registry."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import ACTIVATIONS, MODELS, Classifier, build_model


@dataclass(frozen=True)
class Row:
    """What is expected of a model of the registry."""

    layers: int
    num_features: int
    default_norm: str
    smallest: int
    num_weights: int
    """Of the model for 1x28x28 images and ten classes, counted by hand."""


ROWS = {
    "small_cnn": Row(2, 128, "none", 4, 320 + 18_496 + (64 * 14 * 14 + 1) * 128 + 1_290),
    "lenet5": Row(2, 84, "none", 4, 61_706),
    "cnn_bn": Row(
        3, 256, "batch", 8, 320 + 18_496 + 73_856 + 448 + (128 * 3 * 3 + 1) * 256 + 2_570
    ),
    "pixeldp_cnn": Row(2, 1024, "none", 4, 832 + 51_264 + (64 * 7 * 7 + 1) * 1024 + 10_250),
    "resnet18": Row(2, 512, "batch", 8, 11_172_810),
}
SHAPES = [(1, 8), (1, 28), (3, 32)]
each_model = pytest.mark.parametrize("name", MODELS)
each_shape = pytest.mark.parametrize(("channels", "side"), SHAPES)


class Doubled(nn.Module):
    """Doubles what passes."""

    def forward(self, x: Tensor) -> Tensor:
        """Double."""
        return 2 * x


def _build(name: str, channels: int, side: int, **words: str) -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, dataset=dataset_of(channels, side), **words)
    assert isinstance(model, Classifier)
    return model


def _batch(channels: int, side: int, count: int = 2) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_every_model_has_a_row() -> None:
    assert set(ROWS) == set(MODELS)


@each_model
@torch.no_grad()
def test_the_layout_of_the_weights_does_not_change_the_scores(name: str) -> None:
    model, x = _build(name, 3, 32).eval(), _batch(3, 32, count=5)
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    # The fast layout, which a kernel of one channel or one pixel has in either.
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    usual = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(model(x), usual(x))


@each_model
@each_shape
@torch.no_grad()
def test_forward_is_the_head_on_the_features(name: str, channels: int, side: int) -> None:
    model = _build(name, channels, side).eval()
    x = _batch(channels, side)
    logits, features = model(x), model.features(x)
    assert features.shape == (2, ROWS[name].num_features)
    assert model.head.in_features == ROWS[name].num_features
    assert logits.shape == (2, 10)
    assert torch.equal(logits, model.head(features))
    assert logits.isfinite().all()


@each_model
def test_the_points_are_the_image_the_stem_layers_and_the_features(name: str) -> None:
    model = _build(name, 1, 8)
    layers = [f"layer{number}" for number in range(1, ROWS[name].layers + 1)]
    assert list(model.points) == ["image", *layers, "features"]
    assert model.noise_points == ("image", *layers)
    assert [layer for layer, _ in model.stem.named_children()] == layers
    assert all(type(point) is nn.Identity for point in model.points.values())


@each_model
def test_the_number_of_weights_is_the_papers(name: str) -> None:
    model = _build(name, 1, 28)
    assert sum(weights.numel() for weights in model.parameters()) == ROWS[name].num_weights


@each_model
@torch.no_grad()
def test_an_inserted_module_is_used_at_every_point(name: str) -> None:
    model = _build(name, 1, 8).eval()
    x = _batch(1, 8)
    logits, features, doubled = model(x), model.features(x), model(2 * x)
    for point in model.points:
        model.insert(point, Doubled())
        assert not torch.allclose(model(x), logits)
        assert torch.equal(model.features(x), features) == (point == "features")
        assert point != "image" or torch.equal(model(x), doubled)
        model.points[point] = nn.Identity()


def test_modules_at_one_point_run_in_the_order_of_insertion() -> None:
    model = _build("small_cnn", 1, 8).eval()
    x = _batch(1, 8)
    expected = model((2 * x).clamp(max=1))
    model.insert("image", Doubled())
    model.insert("image", nn.Hardtanh(0, 1))
    assert torch.equal(model(x), expected)


def test_an_unknown_point_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="known: image, layer1, layer2, features"):
        _build("small_cnn", 1, 8).insert("layer9", Doubled())


@each_model
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_the_norm_is_the_one_asked_for(name: str, norm: str) -> None:
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}
    model = _build(name, 1, 8, norm=norm)
    found = {type(module) for module in model.modules()} & set(kinds.values())
    assert found == ({kinds[norm]} if norm in kinds else set())
    loss: Tensor = model.train()(_batch(1, 8)).logsumexp(1).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(weights.grad is not None for weights in model.parameters())


@each_model
def test_the_default_norm_is_the_models_own(name: str) -> None:
    assert MODELS[name].default_norm == ROWS[name].default_norm
    default = _build(name, 1, 8).state_dict()
    assert list(default) == list(_build(name, 1, 8, norm=ROWS[name].default_norm).state_dict())


@each_model
@pytest.mark.parametrize("word", ACTIVATIONS)
def test_every_activation_replaces_all_relus(name: str, word: str) -> None:
    model = _build(name, 1, 8, activation=word)
    kinds = {type(make()) for make in ACTIVATIONS.values()}
    used = [module for module in model.modules() if type(module) in kinds]
    assert {type(module) for module in used} == {type(ACTIVATIONS[word]())}
    assert not any(getattr(module, "inplace", False) for module in used)


@each_model
@each_shape
def test_the_gradient_reaches_the_image(name: str, channels: int, side: int) -> None:
    model = _build(name, channels, side).eval()
    x = _batch(channels, side).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    assert gradient.shape == x.shape
    assert gradient.flatten(1).abs().sum(1).min() > 0


@each_model
def test_a_batch_of_one_gives_the_row_of_a_larger_batch_in_eval(name: str) -> None:
    model = _build(name, 1, 8).eval()
    x = _batch(1, 8, count=5)
    assert torch.allclose(model(x[:1]), model(x)[:1], atol=1e-5)


@each_model
def test_pixels_are_normalised_inside(name: str) -> None:
    dataset = dataset_of(3, 8)
    model = build_model(name, dataset=dataset)
    assert isinstance(model, Classifier)
    normalised = model.normalization(dataset.images.images())
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-3
    assert normalised.std((0, 2, 3)) == pytest.approx(1, abs=1e-2)


@each_model
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    first, second = _build(name, 1, 8).state_dict(), _build(name, 1, 8).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@each_model
@pytest.mark.parametrize("side", [9, 15, 33, 50])
def test_odd_and_larger_images_fit(name: str, side: int) -> None:
    assert _build(name, 1, side).eval()(_batch(1, side)).shape == (2, 10)


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "cnn_bn", "pixeldp_cnn"])
def test_large_images_do_not_make_the_dense_layer_grow(name: str) -> None:
    sizes = [
        sum(weights.numel() for weights in _build(name, 3, side).parameters()) for side in (96, 160)
    ]
    assert sizes[0] == sizes[1] < 10_000_000


@each_model
def test_the_smallest_size_works_and_a_smaller_one_is_refused(name: str) -> None:
    smallest = ROWS[name].smallest
    assert _build(name, 1, smallest).eval()(_batch(1, smallest)).shape == (2, 10)
    with pytest.raises(InputError, match=f"at least {smallest}x{smallest}.*{smallest - 1}x"):
        _build(name, 1, smallest - 1)


def test_unknown_words_name_the_known_ones() -> None:
    dataset = dataset_of(1, 8)
    with pytest.raises(InputError, match=r"known: small_cnn, lenet5, .*package.module:factory"):
        build_model("resnet19", dataset=dataset)
    with pytest.raises(InputError, match="known: default, batch, group, none"):
        build_model("small_cnn", dataset=dataset, norm="layer")
    with pytest.raises(InputError, match="known: relu, elu"):
        build_model("small_cnn", dataset=dataset, activation="swish")
