import pytest
import torch

from trainables.models.autoencoder import Autoencoder, Decoder
from trainables.training.modes import seeded

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 5, 9), (3, 96, 65), (1, 1, 1)]
)
def test_a_decoder_draws_images_of_any_size_in_the_pixel_range(shape: tuple[int, int, int]) -> None:
    images = Decoder(4, shape)(torch.randn(3, 4))
    assert images.shape == (3, *shape) and images.min() >= 0 and images.max() <= 1
    with seeded(0, CPU) as generator:
        network = Autoencoder(4, shape)
        network.loss(torch.rand(3, *shape), 0.1, generator).backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in network.parameters())


def test_the_loss_is_the_negative_evidence_bound() -> None:
    network = Autoencoder(2, (1, 2, 2))
    for layer in (network.encoder[-1], network.decoder.dense[-1]):
        for weights in layer.parameters():
            torch.nn.init.zeros_(weights)
    x = torch.tensor([0.5, 0.6, 0.5, 0.5]).view(1, 1, 2, 2)
    # Latents as a priori, every pixel restored as one half.
    loss = network.loss(x, 0.1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, torch.tensor(0.1**2 / (2 * 0.1**2)))
    network.encoder[-1].bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0])
    with_mean = network.loss(x, 0.1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(with_mean, loss + 0.5)
