"""What a bundle answers to pictures. B images, K classes."""

from dataclasses import dataclass

from torch import Tensor

from trainables.deployed.predictor import REFUSED, Prediction


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answers(Prediction):
    """A prediction with the classes' names."""

    classes: tuple[str, ...]
    radius: Tensor | None = None
    """(B,) certified L2 radius, where it was asked for and the stack certifies."""

    @property
    def rejected(self) -> Tensor:
        """(B,) whether it rejects the image or abstains."""
        return self.label == REFUSED

    @property
    def probability(self) -> Tensor:
        """(B,) of the answered class; of the likeliest one where it rejects."""
        found = self.log_probabilities.exp()
        answered = self.label.where(~self.rejected, found.argmax(1))
        return found.gather(1, answered[:, None])[:, 0]

    @property
    def names(self) -> list[str | None]:
        """Names of the answered classes; None where it rejects."""
        return [None if i == REFUSED else self.classes[i] for i in self.label.tolist()]
