"""No attack may find, inside a certified radius, an image that the vote takes for another class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.making import EPS, context_of, spec_of
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.pgd import pgd
from trainables.defenses import build_defense
from trainables.defenses.certified.gaussian_noise import VotingPredictor
from trainables.deployed.averaging import averaged_surface
from trainables.deployed.predictor import Surface
from trainables.deployed.votes import count_votes
from trainables.threats.evasion.l2_curve import stretched
from trainables.threats.evasion.run import lengths

CASES: Mapping[str, Mapping[str, Any]] = {
    "pixeldp": {"attack_bound": 0.15, "n": 500, "draws": 200},
    "randomized_smoothing": {"sigma": 0.25, "n": 500, "draws": 200},
}
SEARCH = {"steps": 40, "search_steps": 1, "initial_const": 5.0, "step_size": 0.05, "confidence": 1}
"""Of Carlini and Wagner's attack, whose directions are what counts here."""
SEEN = 0.65
"""Share of 200 votes; of what has more, less than half is a matter of 1 in 100,000."""

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Certified:
    """Images with what is proven of them by a trained predictor."""

    predictor: VotingPredictor
    x: Tensor
    label: Tensor
    radius: Tensor


def certified(predictor: VotingPredictor, x: Tensor, generator: torch.Generator) -> Certified:
    """Return those of some images that are certified, whatever their true class."""
    found = predictor.certificates(x, generator)
    assert found is not None
    rows = found.radius > 1e-3
    # Images are rounded to float32: so much less, and no attack leaves the proven ball.
    radius = (found.radius[rows] - ROUNDING).float()
    return Certified(predictor, x[rows], found.label[rows], radius)


def candidates(
    it: Certified,
    surfaces: list[Surface],
    radius: Tensor,
    generator: torch.Generator,
    **search: Any,
) -> Iterator[Tensor]:
    """Return what PGD and Carlini and Wagner's attack make, within a radius of each image (B,)."""
    for surface in surfaces:

        def scores(images: Tensor, surface: Surface = surface) -> Tensor:
            return surface.scores(images, generator)

        yield pgd(
            scores, it.x, it.label, eps=radius, norm="l2", early_stop=False, generator=generator
        )
        found = carlini_wagner(scores, it.x, it.label, early_stop=False, **search)
        inside = (lengths(found - it.x, "l2") <= radius)[:, None, None, None]
        cut = it.x + stretched(it.x, found - it.x, radius)
        yield torch.where(inside, found, cut.clamp(0, 1))


def breaks(it: Certified, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return for which images (B,) another class clearly wins a vote of ten times the draws."""
    draw, draws = it.predictor.draw, it.predictor.draws
    first = count_votes(draw, images, generator, draws=draws).counts
    own = first.gather(1, it.label[:, None]).squeeze(1)
    doubtful = (own < SEEN * draws).nonzero().flatten()
    broken = torch.zeros(len(images), dtype=torch.bool)
    if len(doubtful):
        counts = count_votes(draw, images[doubtful], generator, draws=10 * draws).counts
        label = it.label[doubtful, None]
        own = counts.gather(1, label).squeeze(1)
        other = counts.scatter(1, label, -1).amax(1)
        broken[doubtful] = other - own > 3 * (other + own).double().sqrt()
    return broken


@pytest.fixture(scope="module", params=CASES)
def proven(request: pytest.FixtureRequest, artefact_folder: Path) -> Certified:
    """Train a small_cnn under a defense and certify held-out digits."""
    torch.set_num_threads(1)
    defense = build_defense(request.param, CASES[request.param], radius=EPS)
    ctx = context_of(
        spec_of(defense, epochs=20, train_images=None, measured_images=None), artefact_folder
    )
    model = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model
    predictor = ctx.deploy(ctx.spec.stack, model)
    assert isinstance(predictor, VotingPredictor)
    pools = (ctx.pools.validation, ctx.pools.test)
    x = torch.cat([pool.images() for pool in pools if pool is not None])
    return certified(predictor, x[:270], torch.Generator().manual_seed(1))


def _attacked(it: Certified, radius: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    few = averaged_surface(it.predictor.draw, 10)
    surfaces = [few if s.kind == "eot" else s for s in it.predictor.surfaces()]
    assert [surface.kind for surface in surfaces] == ["eot", "exact"]
    return list(candidates(it, surfaces, radius, generator, **SEARCH))


@pytest.mark.slow
def test_nothing_is_broken_inside_its_certified_radius(proven: Certified) -> None:
    assert len(proven.x) >= 200 and float(proven.radius.median()) > 0.05
    generator = torch.Generator().manual_seed(3)
    for images in _attacked(proven, proven.radius):
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        far = lengths(images.double() - proven.x.double(), "l2")
        assert float((far - proven.radius).max()) <= ROUNDING
        assert float((far / proven.radius).median()) > 0.99
        assert int(breaks(proven, images, generator).sum()) == 0


@pytest.mark.slow
def test_the_same_attacks_break_images_outside_it(proven: Certified) -> None:
    rows = proven.radius.topk(40).indices
    few = Certified(proven.predictor, proven.x[rows], proven.label[rows], proven.radius[rows])
    generator = torch.Generator().manual_seed(3)
    found = [breaks(few, images, generator) for images in _attacked(few, 8 * few.radius)]
    assert int(torch.stack(found).any(0).sum()) >= 5
