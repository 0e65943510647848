"""A user's own network, named by import path: built, and tried before anything is trained.

Axes: B batch, K classes.
"""

import hashlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from trainables.datasets import Dataset
from trainables.device import forked_rng
from trainables.errors import InputError
from trainables.imports import import_attribute, running_user_code

_TOLERANCE = 1e-3
"""Largest relative difference of a network's answers to one image in two batches: sums of float32
are rounded otherwise in another batch, by about 1e-6 of the largest logit."""


def build_own(name: str, dataset: Dataset) -> nn.Module:
    """Build the network of `package.module:factory` and try it on the data set's shape.

    The factory is called as factory(channels=, height=, width=, num_classes=, mean=, std=). Logits
    of half or double precision are cast to float32. Raises InputError, with the remedy, for a
    network that could not be trained, attacked or deployed.
    """
    factory = _import_factory(name)
    channels, height, width = dataset.shape
    with running_user_code(
        f"model {name!r}: called with channels, height, width, num_classes, mean, std it failed"
    ):
        model = factory(
            channels=channels,
            height=height,
            width=width,
            num_classes=dataset.num_classes,
            mean=dataset.mean,
            std=dataset.std,
        )
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model {name!r} returned a {type(model).__name__}; it must return an nn.Module"
        )
    _Trial(name, model, dataset).check()
    model.register_forward_hook(_as_float32)
    return model


def given_weights(name: str, dataset: Dataset) -> str:
    """Return the sha256 of the weights that a factory loads, or "" where it draws all of them.

    The network is built under two seeds: what is the same in both, and not one number throughout as
    a layer's initial zeros are, is what the factory brings along.
    """
    states = []
    for seed in (0, 1):
        with forked_rng(torch.device("cpu")):
            torch.manual_seed(seed)
            states.append(build_own(name, dataset).state_dict())
    digest = hashlib.sha256()
    found = False
    for key, value in states[0].items():
        same = torch.equal(value, states[1][key])
        if same and value.numel() > 1 and not bool((value == value.flatten()[0]).all()):
            found = True
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest() if found else ""


def answers_randomly(model: nn.Module, x: Tensor) -> bool:
    """Return whether two answers to the same images x (B, C, H, W) in eval mode differ."""
    was_training = model.training
    with torch.no_grad(), forked_rng(x.device):
        differ = not torch.equal(model.eval()(x), model(x))
    model.train(was_training)
    return differ


def _as_float32(model: nn.Module, inputs: object, logits: Tensor) -> Tensor:
    """Cast logits: half precision would round losses and margins, and attacks mix no precisions."""
    del model, inputs
    return logits.float()


def _import_factory(name: str) -> Callable[..., object]:
    factory = import_attribute(name, "model")
    if not callable(factory):
        raise InputError(f"model {name!r} is not callable; name a factory")
    return cast(Callable[..., object], factory)


class _Trial:
    """Tries a network as training, attacks and deployment will use it, and leaves it as it was."""

    def __init__(self, name: str, model: nn.Module, dataset: Dataset) -> None:
        self.name, self.model, self.classes = name, model, dataset.num_classes
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(
                f"model {name!r} has no parameters to train; return a network with trainable layers"
            )
        device = next(model.parameters()).device
        drawn = torch.rand(2, *dataset.shape, generator=torch.Generator().manual_seed(0))
        self.black, self.drawn = torch.zeros_like(drawn).to(device), drawn.to(device)

    def check(self) -> None:
        """Raise InputError where an answer is not what it must be, in either mode."""
        was_training = self.model.training
        with torch.no_grad():
            self.model.eval()
            self._finite(self.black, "black images")  # lazy layers draw their weights here
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with forked_rng(self.black.device):
            self._check_eval_mode()
            self._check_training_mode()
        self.model.train(was_training)
        self.model.load_state_dict(before)  # batch norm counted the batch of the training mode

    def _check_eval_mode(self) -> None:
        with torch.no_grad():
            self._finite(self.drawn, "random images")
            self._logits(self.drawn[:1], " of one image")
            if not answers_randomly(self.model, self.drawn):
                self._check_independence()

    def _check_training_mode(self) -> None:
        self.model.train()
        logits = self._logits(self.drawn, " in training mode")
        if not logits.requires_grad:
            raise InputError(
                f"model {self.name!r}: its logits carry no gradient in training mode; let forward "
                "not run under torch.no_grad() or detach()"
            )

    def _check_independence(self) -> None:
        """Compare the answers to each image alone, in a batch, and in the batch turned round."""
        together = self.model(self.drawn)
        others = {
            "alone": torch.cat([self.model(image[None]) for image in self.drawn]),
            "in another order": self.model(self.drawn.flip(0)).flip(0),
            "beside other images": torch.stack(
                [self.model(torch.stack([image, black]))[0]
                 for image, black in zip(self.drawn, self.black, strict=True)]
            ),
        }  # fmt: skip
        largest = together.abs().max().clamp(min=1e-6)
        for how, logits in others.items():
            if (logits - together).abs().max() > _TOLERANCE * largest:
                raise InputError(
                    f"model {self.name!r} answers an image differently {how} in eval mode; make "
                    "its answer to an image independent of the batch (batch norm with "
                    "track_running_stats=False is not)"
                )

    def _finite(self, x: Tensor, images: str) -> None:
        if not self._logits(x, "").isfinite().all():
            raise InputError(f"model {self.name!r} returns logits that are not finite for {images}")

    def _logits(self, x: Tensor, where: str) -> Tensor:
        given = x.clone()
        with running_user_code(f"model {self.name!r}: it fails on a batch {tuple(x.shape)}{where}"):
            logits: object = self.model(given)
        if not torch.equal(given, x):
            raise InputError(
                f"model {self.name!r} changes its input in place{where}; work on a copy, x.clone()"
            )
        expected = (len(x), self.classes)
        if (
            not isinstance(logits, Tensor)
            or logits.shape != expected
            or not logits.is_floating_point()
        ):
            raise InputError(
                f"model {self.name!r} returns {_describe(logits)} for {tuple(x.shape)}{where}; "
                f"it must return floating-point logits {expected}{_remedy(logits)}"
            )
        return logits


def _remedy(output: object) -> str:
    if isinstance(output, tuple | list | dict):
        return ", and those alone: leave out auxiliary outputs"
    if isinstance(output, Tensor) and output.ndim < 2:
        return ": keep the batch axis, as squeeze(1) does and squeeze() does not"
    return ""


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    return f"a {type(output).__name__}"
