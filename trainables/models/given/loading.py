"""Given weights put into the network that they are named for."""

from __future__ import annotations

from torch import nn

from trainables.errors import InputError
from trainables.models.given.adapted import Adapted
from trainables.models.given.checkpoint import read_checkpoint, sha256_of
from trainables.models.given.fitting import Fitted, fit
from trainables.storage.folders import redacted


def given_state(place: str, sha256: str, model: nn.Module, classes: int) -> Fitted:
    """Read a checkpoint's tensors by the names of a model, in the model's precision.

    Raises InputError where the file is not the one of that sha256, or does not fit the model, whose
    answers are of so many classes.
    """
    if sha256_of(place) != sha256:
        raise InputError(
            f"--weights {redacted(place)}: the file changed since the run began; bring it back, or "
            "launch again"
        )
    # A checkpoint of another package's network has that package's names.
    inner, prefix = (model.network, "network.") if isinstance(model, Adapted) else (model, "")
    expected = inner.state_dict()
    found = fit(read_checkpoint(place), expected, classes=classes)
    state = {prefix + name: found.state[name].to(target.dtype) for name, target in expected.items()}
    return Fitted(state, found.words)
