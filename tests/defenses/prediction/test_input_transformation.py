from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax
from trainables.attacks.pgd import pgd
from trainables.defenses.prediction.input_transformation import (
    InputTransformation,
    TransformingPredictor,
)
from trainables.defenses.prediction.squeezers import (
    bit_depth_squeezer,
    jpeg,
    median_filter,
    median_squeezer,
    reduce_bit_depth,
)
from trainables.deployed.predictor import Predictor, Surface
from trainables.errors import InputError

GENERATOR = torch.Generator()
KINDS: list[dict[str, Any]] = [{"kind": "bit_depth"}, {"kind": "median"}, {"kind": "jpeg"}]


@pytest.mark.parametrize(
    ("parameters", "transform"),
    [
        ({"kind": "bit_depth", "bits": 2}, lambda x: reduce_bit_depth(x, 2)),
        ({"kind": "median", "window": 3}, lambda x: median_filter(x, 3)),
        ({"kind": "jpeg", "quality": 30}, lambda x: jpeg(x, 30)),
    ],
    ids=("bit_depth", "median", "jpeg"),
)
def test_the_model_sees_the_transformed_image(
    parameters: dict[str, Any], transform: Any, undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model)
    predictor = InputTransformation(**parameters).deploy(plain, undefended.ctx)
    found = predictor.predict(undefended.x, GENERATOR)
    expected = plain.predict(transform(undefended.x), GENERATOR)
    assert torch.equal(found.label, expected.label)
    assert torch.equal(found.log_probabilities, expected.log_probabilities)
    assert predictor.forward_passes_per_prediction == 1 and not predictor.stochastic
    for scores in (predictor.scores, *(surface.scores for surface in predictor.surfaces())):
        torch.testing.assert_close(
            scores(undefended.x, GENERATOR).log_softmax(1),
            found.log_probabilities,
            atol=1e-3,
            rtol=1e-3,
        )


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_an_image_is_answered_alike_in_every_batch(
    parameters: dict[str, Any], undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model)
    predictor = InputTransformation(**parameters).deploy(plain, undefended.ctx)
    together = predictor.predict(undefended.x[:9], GENERATOR).log_probabilities
    alone = [predictor.predict(x[None], GENERATOR).log_probabilities for x in undefended.x[:9]]
    torch.testing.assert_close(torch.cat(alone), together)


@pytest.mark.parametrize(
    ("parameters", "kinds"),
    [(KINDS[0], ["bpda"]), (KINDS[1], ["exact", "bpda"]), (KINDS[2], ["bpda", "bpda"])],
    ids=str,
)
def test_surfaces_say_which_gradients_are_true(
    parameters: dict[str, Any], kinds: list[str], undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model)
    predictor = InputTransformation(**parameters).deploy(plain, undefended.ctx)
    assert [surface.kind for surface in predictor.surfaces()] == kinds


def test_bpda_gives_the_gradient_of_the_model_at_the_transformed_image() -> None:
    model = LinearSoftmax(4, 3)
    predictor = TransformingPredictor(Predictor(model), bit_depth_squeezer(1))
    (surface,) = predictor.surfaces()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 1, 2, 2, generator=generator).requires_grad_(True)
    squeezed = reduce_bit_depth(x.detach(), 1).requires_grad_(True)
    (found,) = torch.autograd.grad(surface.scores(x, GENERATOR).logsumexp(1).sum(), x)
    (expected,) = torch.autograd.grad(model(squeezed).logsumexp(1).sum(), squeezed)
    torch.testing.assert_close(found, expected)


def test_the_true_gradient_of_the_median_is_that_of_finite_differences() -> None:
    model = LinearSoftmax(9, 3).double()
    exact = TransformingPredictor(Predictor(model), median_squeezer(2)).surfaces()[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: exact.scores(v, GENERATOR), x)


def test_inner_surfaces_keep_their_kind_draws_and_margin_behind_the_transformation() -> None:
    class Noisy(Predictor):
        def surfaces(self) -> list[Surface]:
            return [Surface(self.scores, "eot", 7, reject_margin=lambda x, g: x.flatten(1).sum(1))]

    model, x = LinearSoftmax(4, 3), torch.full((1, 1, 2, 2), 0.6)
    (surface,) = TransformingPredictor(Noisy(model), bit_depth_squeezer(1)).surfaces()
    assert (surface.kind, surface.draws) == ("bpda", 7)
    assert surface.reject_margin is not None
    assert float(surface.reject_margin(x, GENERATOR)) == 4.0


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_every_surface_breaks_the_deployed_model(
    parameters: dict[str, Any], undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model)
    predictor = InputTransformation(**parameters).deploy(plain, undefended.ctx)
    x, y = undefended.x[:100], undefended.y[:100]
    clean = predictor.predict(x, GENERATOR).label == y
    for surface in predictor.surfaces():
        generator = torch.Generator().manual_seed(0)
        attacked = pgd(
            lambda images, s=surface: s.scores(images, GENERATOR),  # type: ignore[misc]
            x, y, eps=EPS, generator=generator,
        )  # fmt: skip
        robust = predictor.predict(attacked, GENERATOR).label == y
        assert float(robust.double().mean()) < float(clean.double().mean()) - 0.4


def test_jpeg_of_images_that_it_does_not_know_is_refused(undefended: TrainedNet) -> None:
    pixels = undefended.ctx.dataset.images.pixels.repeat(1, 4, 1, 1)
    dataset = replace(
        undefended.ctx.dataset, images=replace(undefended.ctx.dataset.images, pixels=pixels)
    )
    ctx = replace(undefended.ctx, dataset=dataset)
    with pytest.raises(InputError, match="1 or 3 channels, but those of digits have 4"):
        InputTransformation(kind="jpeg").deploy(Predictor(undefended.model), ctx)
    with pytest.raises(InputError, match="kind: unknown 'blur'; known: bit_depth, median, jpeg"):
        InputTransformation(kind="blur")
