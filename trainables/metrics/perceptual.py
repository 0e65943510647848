"""Perceptual distance by the lpips package.

Axes: N images, C channels, H, W.
"""

import os
import warnings
from functools import lru_cache
from pathlib import Path
from pickle import PickleError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.records.value import MetricValue, Missing
from trainables.storage.folders import is_uri, staged_file

SMALLEST_SIDE = 64
"""Smaller images are resized up to this: AlexNet's strides leave nothing of them otherwise."""
_UNREADABLE = (
    OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError, EOFError, PickleError,
)  # fmt: skip
"""What torch.load and the copying raise on files that hold something else."""
WEIGHTS_NAME = "alexnet-owt-7be5be79.pth"
"""Name of torchvision's file of AlexNet weights."""


def find_weights(given: Path | str | None) -> Path | None:
    """Find the backbone's weights: the file given, else where torchvision keeps its downloads.

    What lies at a URI is brought to this node first.
    """
    if given is not None:
        return staged_file(str(given)) if is_uri(str(given)) else Path(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    return cached if cached.is_file() else None


def lpips_distance(clean: Tensor, changed: Tensor, weights: Path | None) -> MetricValue:
    """Return the mean LPIPS distance (AlexNet) of pairs (N, C, H, W) in [0, 1].

    Missing, with the reason, without the file of the backbone's weights, as `find_weights` returns
    it. Source: Zhang et al., 2018.
    """
    if weights is None:
        return Missing(
            f"the LPIPS backbone's weights ({WEIGHTS_NAME}) are not here; download them with "
            "torchvision.models.alexnet(weights='DEFAULT') or set --lpips-weights FILE"
        )
    found = distances(load_lpips(weights), clean, changed).double().cpu().numpy()
    return intervals.mean(found, low=0.0)


def distances(net: nn.Module, clean: Tensor, changed: Tensor, batch: int = 64) -> Tensor:
    """Return the distance of each pair (N,), in batches."""
    net = net.to(clean.device)
    with torch.no_grad():
        parts = [
            net(_prepared(clean[i : i + batch]), _prepared(changed[i : i + batch])).flatten()
            for i in range(0, len(clean), batch)
        ]
    return torch.cat(parts)


@lru_cache(maxsize=1)
def load_lpips(weights: Path) -> nn.Module:
    """Build the LPIPS network with AlexNet's weights from a file.

    Raises InputError where the file is not AlexNet's weights.
    """
    import lpips

    with warnings.catch_warnings():
        # lpips calls torchvision by its old keywords.
        warnings.simplefilter("ignore", UserWarning)
        net: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        state = torch.load(os.fspath(weights), map_location="cpu", weights_only=True)
        features = {k.removeprefix("features."): v for k, v in state.items() if "features" in k}
        _load_backbone(net, features)
    except _UNREADABLE as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--lpips-weights {weights}: no AlexNet weights ({detail}); use torchvision's "
            f"{WEIGHTS_NAME}"
        ) from error
    return net.eval().requires_grad_(False)


def _load_backbone(net: nn.Module, features: dict[str, Tensor]) -> None:
    # lpips cuts AlexNet into slices that keep the numbers of torchvision's feature layers.
    own = dict(net.net.named_parameters())  # type: ignore[union-attr]
    for name, parameter in own.items():
        layer = name.partition(".")[2]
        with torch.no_grad():
            parameter.copy_(features[layer])


def _prepared(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    side = min(images.shape[2:])
    if side < SMALLEST_SIDE:
        scale = SMALLEST_SIDE / side
        images = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
    return 2 * images - 1  # lpips works on [-1, 1]
