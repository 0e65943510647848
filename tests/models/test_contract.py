import torch
from torch import Tensor, nn
from torchvision.models import vgg11

from tests.models.making import dataset_of
from trainables.models import build_model, missing_parts

PARTS = ("features", "points", "head", "convolutions")


class OnlyFeatures(nn.Module):
    """A user's model that has features but no points and no linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 2))

    def features(self, x: Tensor) -> Tensor:
        """Flatten."""
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(x))
        return logits


def test_our_models_lack_no_part() -> None:
    assert missing_parts(build_model("small_cnn", dataset=dataset_of(1, 8)), PARTS) == []


def test_missing_parts_are_listed_in_the_order_of_the_need() -> None:
    assert missing_parts(nn.Linear(3, 2), ["head", "points", "features"]) == [
        "head",
        "points",
        "features",
    ]
    assert missing_parts(OnlyFeatures(), PARTS) == ["points", "head", "convolutions"]
    assert missing_parts(nn.Linear(3, 2), []) == []


def test_the_feature_maps_of_a_torchvision_model_are_no_features() -> None:
    with torch.device("meta"):
        model = vgg11(weights=None)
    assert missing_parts(model, ["features"]) == ["features"]
