"""The defenses by name."""

from collections.abc import Mapping
from typing import Any

from trainables.defenses.certified.pixeldp import PixelDP
from trainables.defenses.certified.randomized_smoothing import RandomizedSmoothing
from trainables.defenses.defense import Defense
from trainables.defenses.detectors.energy_detector import EnergyDetector
from trainables.defenses.detectors.feature_squeezing import FeatureSqueezing
from trainables.defenses.detectors.mahalanobis_detector import MahalanobisDetector
from trainables.defenses.filters.activation_clustering import ActivationClustering
from trainables.defenses.filters.spectral_signatures import SpectralSignatures
from trainables.defenses.prediction.confidence_masking import ConfidenceMasking
from trainables.defenses.prediction.denoiser import Denoiser
from trainables.defenses.prediction.diffusion_purification import DiffusionPurification
from trainables.defenses.prediction.ensemble import Ensemble
from trainables.defenses.prediction.input_transformation import InputTransformation
from trainables.defenses.prediction.randomized_network import RandomizedNetwork
from trainables.defenses.prediction.temperature import Temperature
from trainables.defenses.repair.fine_pruning import FinePruning
from trainables.defenses.repair.ft_sam import FtSam
from trainables.defenses.training.dp_sgd import DPSGD
from trainables.defenses.training.dynamic_mixed_batch import DynamicMixedBatch
from trainables.defenses.training.early_stopping import EarlyStopping
from trainables.defenses.training.fgsm_adversarial_training import FgsmAdversarialTraining
from trainables.defenses.training.gradient_regularization import GradientRegularization
from trainables.defenses.training.label_smoothing import LabelSmoothing
from trainables.defenses.training.mixup import Mixup
from trainables.defenses.training.pgd_adversarial_training import PgdAdversarialTraining
from trainables.defenses.training.static_adversarial_finetuning import StaticAdversarialFinetuning
from trainables.defenses.training.trades import Trades
from trainables.errors import InputError
from trainables.imports import import_attribute
from trainables.parameters import build

DEFENSES: Mapping[str, type[Defense]] = {
    "none": Defense,
    "spectral_signatures": SpectralSignatures,
    "activation_clustering": ActivationClustering,
    "fgsm_adversarial_training": FgsmAdversarialTraining,
    "pgd_adversarial_training": PgdAdversarialTraining,
    "trades": Trades,
    "static_adversarial_finetuning": StaticAdversarialFinetuning,
    "dynamic_mixed_batch": DynamicMixedBatch,
    "dp_sgd": DPSGD,
    "label_smoothing": LabelSmoothing,
    "mixup": Mixup,
    "gradient_regularization": GradientRegularization,
    "early_stopping": EarlyStopping,
    "fine_pruning": FinePruning,
    "ft_sam": FtSam,
    "temperature": Temperature,
    "confidence_masking": ConfidenceMasking,
    "randomized_network": RandomizedNetwork,
    "pixeldp": PixelDP,
    "ensemble": Ensemble,
    "input_transformation": InputTransformation,
    "feature_squeezing": FeatureSqueezing,
    "denoiser": Denoiser,
    "diffusion_purification": DiffusionPurification,
    "mahalanobis_detector": MahalanobisDetector,
    "energy_detector": EnergyDetector,
    "randomized_smoothing": RandomizedSmoothing,
}


def defense_type(name: str) -> type[Defense]:
    """Look a defense up, by name or import path; InputError names the known ones."""
    if name in DEFENSES:
        return DEFENSES[name]
    if ":" in name:
        found = import_attribute(name, "defense")
        if not (isinstance(found, type) and issubclass(found, Defense)):
            raise InputError(
                f"{name} is not a Defense class; derive it from trainables.defenses.Defense"
            )
        if found.name != name:
            raise InputError(f"{name}: the class must say so itself; write name = {name!r} in it")
        return found
    raise InputError(
        f"unknown defense {name!r}; known: {', '.join(DEFENSES)}, or package.module:Class"
    )


def build_defense(name: str, raw: Mapping[str, Any], *, radius: float) -> Defense:
    """Build a defense from what a user wrote; `radius` is the data set's standard one."""
    return build(defense_type(name), raw, owner=name, radius=radius)
