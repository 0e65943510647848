"""Models: a stem of named layers, features, a head, and places where a defense may insert."""

from trainables.models.contract import Classifier, ModelArguments, missing_parts
from trainables.models.norms import ACTIVATIONS, Norm, activation, norm_layer
from trainables.models.registry import (
    MODELS,
    ModelEntry,
    build_model,
    is_own,
    model_code_fingerprint,
    model_fingerprint,
)

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "Classifier",
    "ModelArguments",
    "ModelEntry",
    "Norm",
    "activation",
    "build_model",
    "is_own",
    "missing_parts",
    "model_code_fingerprint",
    "model_fingerprint",
    "norm_layer",
]
