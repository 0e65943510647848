import pytest
import torch
from torch import Tensor

from trainables.deployed.votes import count_votes

CLASSES = 3


class RecordingDraw:
    """Gives random scores whose noise is the generator's, and keeps what it gave."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.scores: dict[float, list[Tensor]] = {}

    def __call__(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return scores (count, B, K) that favour the class of the image's pixel."""
        self.sizes.append((count, len(x)))
        scores = torch.randn(count, len(x), CLASSES, generator=generator)
        scores[:, torch.arange(len(x)), x.flatten().long() % CLASSES] += 1
        for column, image in enumerate(x.flatten().tolist()):
            self.scores.setdefault(image, []).append(scores[:, column])
        return scores


def _images(count: int) -> Tensor:
    return torch.arange(count).float().view(count, 1, 1, 1)


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("count", "draws"), [(1, 1), (5, 7), (3, 129), (40, 50), (2, 1000)])
def test_the_votes_are_those_of_a_plain_loop_over_the_scores(count: int, draws: int) -> None:
    draw, x = RecordingDraw(), _images(count)
    found = count_votes(draw, x, _seed(), draws=draws)
    assert found.draws.tolist() == [draws] * count
    for row, image in enumerate(x.flatten().tolist()):
        scores = torch.cat(draw.scores[image])
        assert len(scores) == draws
        counts = [0] * CLASSES
        for one in scores:
            counts[int(one.argmax())] += 1
        assert found.counts[row].tolist() == counts
        assert int(found.winner[row]) == counts.index(max(counts))
        expected = scores.double().softmax(1).mean(0).log().float()
        torch.testing.assert_close(found.log_probabilities[row], expected, rtol=1e-5, atol=1e-5)


def test_the_rows_at_once_do_not_grow_with_the_draws_or_the_images() -> None:
    for count, draws in ((1, 100), (1, 20_000), (300, 10), (300, 100)):
        draw = RecordingDraw()
        count_votes(draw, _images(count), _seed(), draws=draws)
        assert max(times * rows for times, rows in draw.sizes) <= 128
        assert sum(times * rows for times, rows in draw.sizes) == count * draws


def test_few_draws_are_taken_for_many_images_at_once() -> None:
    draw = RecordingDraw()
    count_votes(draw, _images(64), _seed(), draws=2)
    assert draw.sizes == [(2, 64)]


def test_hopeless_images_are_drawn_no_further_and_the_others_to_the_end() -> None:
    asked: list[tuple[list[int], int]] = []

    def hopeless(counts: Tensor, rows: Tensor, taken: int) -> Tensor:
        assert counts.shape == (len(rows), CLASSES)
        assert counts.sum(1).tolist() == [taken] * len(rows)
        asked.append((rows.tolist(), taken))
        return (rows % 4 == 1) & (taken >= 40)

    draw, x = RecordingDraw(), _images(30)
    found = count_votes(draw, x, _seed(), draws=1000, hopeless=hopeless)
    stopped = torch.arange(30) % 4 == 1
    assert found.draws[stopped].tolist() == [40] * int(stopped.sum())
    assert found.draws[~stopped].tolist() == [1000] * int((~stopped).sum())
    assert torch.equal(found.counts.sum(1), found.draws)
    for row, image in enumerate(x.flatten().tolist()):
        scores = torch.cat(draw.scores[image])
        assert len(scores) == int(found.draws[row])
        torch.testing.assert_close(
            found.log_probabilities[row].exp(), scores.softmax(1).mean(0), rtol=1e-4, atol=1e-6
        )
    # Looks come every 20 draws, and of those that are still drawn for alone.
    assert {taken for _, taken in asked} == set(range(20, 1001, 20))
    assert all(row % 4 != 1 for rows, taken in asked if taken > 40 for row in rows)
    assert {row for rows, _ in asked for row in rows} == set(range(30))


def test_once_every_image_is_hopeless_nothing_is_drawn() -> None:
    draw = RecordingDraw()
    found = count_votes(
        draw, _images(3), _seed(), draws=5000,
        hopeless=lambda counts, rows, taken: torch.ones(len(rows), dtype=torch.bool),
    )  # fmt: skip
    assert found.draws.tolist() == [100] * 3
    assert sum(times * rows for times, rows in draw.sizes) == 300


def test_equal_seeds_agree_and_no_gradient_is_kept() -> None:
    x = _images(4).requires_grad_(True)
    first, again, other = (
        count_votes(RecordingDraw(), x, _seed(seed), draws=50) for seed in (0, 0, 1)
    )
    assert torch.equal(first.counts, again.counts) and not torch.equal(first.counts, other.counts)
    assert not first.log_probabilities.requires_grad
