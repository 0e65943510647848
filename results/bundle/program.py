"""The deployed probabilities as a program of torch.export, which runs without this project.

Axes: B batch, C channels, H, W, K classes.
"""

import io
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export, save

from results.bundle.reference import TOLERANCE
from trainables.deployed.predictor import Predictor
from trainables.device import CPU, full_precision

_STOCHASTIC = "it draws at random at every answer, and a program would repeat one draw for ever"
_REJECTS = "it rejects images, which probabilities alone do not show"


class _Probabilities(nn.Module):
    """x (B, C, H, W) in [0, 1] -> probabilities (B, K)."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.predictor = predictor
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        """Return the deployed probabilities."""
        return self.predictor.predict(x, self.generator).log_probabilities.exp()


def probabilities_program(predictor: Predictor, x: Tensor) -> tuple[bytes | None, str]:
    """Return the program's file, or None and why there is none.

    It is checked on images x (B, C, H, W), together and alone, against the predictor itself.
    """
    if predictor.stochastic:
        return None, _STOCHASTIC
    if predictor.rejects:
        return None, _REJECTS
    try:
        batch = {0: Dim("batch", min=1)}
        with full_precision(CPU):
            program = export(_Probabilities(predictor), (x[:2],), dynamic_shapes={"x": batch})
    except Exception as error:  # whatever stops the tracing is reported on the card
        detail = " ".join(str(error).split()).partition(" For more information")[0][:200]
        return None, f"torch.export cannot trace it ({type(error).__name__}: {detail})"
    for images in (x, x[:1]):
        with full_precision(CPU):
            gap = (program.module()(images) - predictor.probabilities(images)).abs().max()
        if not float(gap) <= TOLERANCE:
            return None, f"the traced program differs from it by {float(gap):.2g}"
    return _file_of(program), ""


def _file_of(program: ExportedProgram) -> bytes:
    # The example would be kept as a pickle, and nobody needs it.
    program.example_inputs = None
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Of kernels that lie channels-last, which are kept whole all the same.
        warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)
        save(program, file)
    return file.getvalue()
