"""Networks of other packages: named, with their own preprocessing, behind our models' contract."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import build_model, is_own, missing_parts, model_fingerprint
from trainables.models.given.adapted import Adapted, AdaptedClassifier, adapt
from trainables.models.given.adapters import preprocessing_of
from trainables.models.given.preprocessing import Preprocess, Preprocessing

SMALL = Preprocessing(resize=10, crop=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
COLOURS = dataset_of(3, 8, num_classes=4)
NAME = "torchvision:shufflenet_v2_x0_5"


def images(side: int, channels: int = 3) -> Tensor:
    """Return two random images."""
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """Flattens 8x8 pixels and classifies them by two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3 * 64, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 4)."""
        logits: Tensor = self.last(self.first(x.flatten(1)).relu())
        return logits


def test_images_are_scaled_cropped_and_normalised() -> None:
    preprocess = Preprocess(SMALL)
    mean, std = (torch.tensor(row).view(1, 3, 1, 1) for row in (SMALL.mean, SMALL.std))
    same = images(8)
    assert torch.equal(preprocess(same), (same - mean) / std)
    larger = images(10)
    assert torch.equal(preprocess(larger), (larger[:, :, 1:9, 1:9] - mean) / std)
    flat = torch.full((1, 3, 32, 32), 0.25)
    assert preprocess(flat).shape == (1, 3, 8, 8)
    assert torch.allclose(preprocess(flat), ((0.25 - mean) / std).expand(1, 3, 8, 8), atol=1e-5)
    grey = images(8, channels=1)
    assert torch.equal(preprocess(grey), (grey.expand(-1, 3, -1, -1) - mean) / std)
    assert dict(preprocess.state_dict()) == {}, "no checkpoint holds them"
    assert SMALL.how(8) == "images of 8x8 are seen as they are"
    assert SMALL.how(10) == "images of 10x10 are cropped to 8x8"
    assert SMALL.how(32) == "images of 32x32 are scaled to 10x10 and cropped to 8x8"


@pytest.mark.parametrize(("resize", "crop"), [(11, 8), (10, 8), (13, 8), (20, 8)])
def test_it_is_what_torchvisions_own_transforms_do(resize: int, crop: int) -> None:
    settings = replace(SMALL, resize=resize, crop=crop)
    theirs = ImageClassification(
        crop_size=crop, resize_size=resize, mean=SMALL.mean, std=SMALL.std, antialias=True
    )
    for side in (resize, 30):
        x = images(side)
        assert torch.allclose(Preprocess(settings)(x), theirs(x), atol=1e-5)


def test_the_last_linear_layer_is_the_head_and_its_input_the_features() -> None:
    network = Linear().eval()
    model = adapt(network, SMALL)
    assert isinstance(model, AdaptedClassifier) and model.head is network.last
    assert missing_parts(model, ("features", "points", "head")) == []
    x = images(8)
    with torch.no_grad():
        features = model.features(x)
        assert features.shape == (2, 5)
        assert torch.equal(model.head(features), model(x))
        model.insert("features", nn.Threshold(1e9, 0.0))
        assert torch.equal(model(x), model.head(torch.zeros(2, 5)))
    assert set(model.state_dict()) == {f"network.{name}" for name in network.state_dict()}
    with pytest.raises(InputError, match="known: image, features"):
        model.insert("layer1", nn.Identity())


def test_a_network_without_such_a_layer_is_adapted_without_a_head() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Linear()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = -self.inner(x)
            return logits

    model = adapt(Turned(), SMALL)
    assert type(model) is Adapted
    assert missing_parts(model, ("features", "points", "head")) == ["features", "points", "head"]


def test_torchvisions_networks_are_built_by_name() -> None:
    model = build_model(NAME, dataset=COLOURS).eval()
    assert isinstance(model, AdaptedClassifier)
    assert model.head.out_features == 4
    x = images(32)
    with torch.no_grad():
        assert model(x).shape == (2, 4)
        assert torch.allclose(model.head(model.features(x)), model(x), atol=1e-5)
    assert not any(getattr(layer, "inplace", False) for layer in model.modules())
    assert not is_own(NAME) and is_own("mine.models:net") and not is_own("small_cnn")
    assert model_fingerprint(NAME, COLOURS) == ""


def test_preprocessing_is_that_of_the_published_weights() -> None:
    found = preprocessing_of("torchvision:resnet50")
    assert (found.resize, found.crop, found.interpolation) == (232, 224, "bilinear")
    assert found.words() == (
        "resize to 232 (bilinear), centre crop of 224, mean (0.485, 0.456, 0.406), std "
        "(0.229, 0.224, 0.225)"
    )


def test_what_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match="unknown model 'torchvision:resnet5': torchvision has res"
    ):
        build_model("torchvision:resnet5", dataset=COLOURS)
    with pytest.raises(InputError, match="is not ours, so norm"):
        build_model(NAME, dataset=COLOURS, norm="group")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm is not installed; install the extra") as caught:
        build_model("timm:resnet18", dataset=COLOURS)
    assert "\n" not in str(caught.value)
