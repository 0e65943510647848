"""A bundle loaded: the deployed stack, ready to answer, with its card.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from results.bundle.answers import Answers
from results.bundle.contents import restore
from results.bundle.errors import BundleError
from results.bundle.members import CARD, REFERENCE, WEIGHTS, from_json, read_members
from results.bundle.photos import Picture, pixels_of
from results.bundle.reference import Reference, reference_of
from trainables.datasets import Dataset
from trainables.deployed.predictor import PREDICTION_SEED, Predictor
from trainables.device import full_precision, indexed
from trainables.trial.spec import TrialSpec


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bundle:
    """A deployed stack as it was exported."""

    path: Path
    predictor: Predictor
    """What was measured, for whoever attacks it again."""
    spec: TrialSpec
    """What was trained: data, network, training, stack and seed."""
    dataset: Dataset
    """The facts of its data set; its images are not in the bundle."""
    reference: Reference
    card: Mapping[str, Any]
    device: torch.device

    def probabilities(self, x: Tensor) -> Tensor:
        """Return class probabilities (B, K) of x, float32 (B, C, H, W) in [0, 1].

        With a fixed declared seed where it draws at random. Raises ValueError for other images.
        """
        with full_precision(self.device):
            return self.predictor.probabilities(self._checked(x))

    def predict(
        self,
        images: Picture | Sequence[Picture],
        generator: torch.Generator | None = None,
        *,
        radius: bool = False,
    ) -> Answers:
        """Return labels (B,), -1 where it rejects or abstains, names and log-probabilities (B, K).

        Images are paths, Pillow's images, or arrays of bytes or of floats in [0, 1], of any size:
        they are prepared as the training images were. With `radius`, each is certified too, where
        the stack certifies, which takes many forward passes. Raises ValueError for other images.
        """
        x = self.prepare(images)
        drawing = self._drawing(generator)
        with full_precision(self.device):
            found = self.predictor.predict(x, drawing)
            proven = self.predictor.certify(x, drawing) if radius else None
        return Answers(
            found.label,
            found.log_probabilities,
            found.reject_score,
            classes=self.dataset.classes,
            radius=proven,
        )

    def prepare(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Return images as the model takes them: float32 (B, C, H, W) in [0, 1]."""
        shape = self.dataset.shape
        fits = isinstance(images, Tensor) and tuple(images.shape[1:]) == shape
        if isinstance(images, Tensor) and fits and images.dtype == torch.float32:
            return self._checked(images)
        return self._checked(pixels_of(images, shape, self.spec.data.resize))

    def certify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
        """Return the certified L2 radius of each image (B,), or None where nothing is certified."""
        with full_precision(self.device):
            return self.predictor.certify(self._checked(x), self._drawing(generator))

    def _drawing(self, generator: torch.Generator | None) -> torch.Generator:
        return generator or torch.Generator(self.device).manual_seed(PREDICTION_SEED)

    def _checked(self, x: Tensor) -> Tensor:
        shape = self.dataset.shape
        if x.dtype != torch.float32 or x.ndim != 4 or tuple(x.shape[1:]) != shape:
            raise ValueError(
                f"images must be float32 (B, {', '.join(map(str, shape))}), but got "
                f"{x.dtype} {tuple(x.shape)}"
            )
        if len(x) and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise ValueError("pixel values must lie in [0, 1]; divide bytes by their largest value")
        return x.to(self.device)


def load(
    folder: Path | str, *, own_code: bool = False, device: torch.device | str = "cpu"
) -> Bundle:
    """Load a bundle: every member is hashed, and no pickle is read.

    `own_code` allows it to import a user's own model and defenses, where it names any. Raises
    BundleError, in one line, for a bundle that was changed, cut off, or never was one.
    """
    path, device = Path(folder), indexed(torch.device(device))
    index, members = read_members(path)
    try:
        restored = restore(
            index, _tensors(path, WEIGHTS, members), own_code=own_code, device=device
        )
        reference = reference_of(_tensors(path, REFERENCE, members))
    except BundleError as error:
        raise error if str(path) in str(error) else BundleError(f"{path}: {error}") from error
    return Bundle(
        path=path,
        predictor=restored.predictor,
        spec=restored.spec,
        dataset=restored.ctx.dataset,
        reference=reference,
        card=from_json(members[CARD], path / CARD),
        device=device,
    )


def _tensors(path: Path, name: str, members: Mapping[str, bytes]) -> dict[str, Tensor]:
    try:
        return load_tensors(members[name])
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{path / name} holds no tensors ({error}); export it again") from None
