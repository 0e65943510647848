"""The rows that a filter kept are compared with unseen ones that it would keep too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.defenses import toys
from tests.making import EPS, context_of, random_images, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import Defense, Stack, build_defense
from trainables.defenses.defense import DefenseContext
from trainables.deployed.predictor import Predictor
from trainables.metrics import intervals
from trainables.metrics.membership import KEPT_ROWS
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.membership.kept import exchanged, kept_rows
from trainables.threats.membership.membership import Membership
from trainables.trial.context import TrialContext


@dataclass(frozen=True, kw_only=True)
class KeepBright(Defense):
    """Keep the brighter half of the rows."""

    name = f"{__name__}:KeepBright"
    slot = "data_filter"

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        """Return the rows that are brighter than the median."""
        brightness = data.images().mean((1, 2, 3))
        return (brightness > brightness.median()).nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class KeepAll(Defense):
    """A filter that drops nothing."""

    name = f"{__name__}:KeepAll"
    slot = "data_filter"


class SurerOfBright(Predictor):
    """Has seen nothing: it is the surer, the brighter an image is."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 10)."""
        return 20 * x.mean((1, 2, 3))[:, None] * torch.eye(10)[0]


def _measured(found: MetricValue) -> Measured:
    assert isinstance(found, Measured)
    return found


def _shuffled(ctx: TrialContext, seed: int) -> TrialContext:
    """Deal the rows of training and validation pool out anew."""
    pools = ctx.pools
    assert pools.validation
    count = len(pools.train)
    joined = LabelledImages(
        pixels=torch.cat([pools.train.pixels, pools.validation.pixels]),
        labels=torch.cat([pools.train.labels, pools.validation.labels]),
        scale=pools.train.scale,
    )
    order = torch.randperm(len(joined), generator=torch.Generator().manual_seed(seed))
    dealt = joined.select(order[:count]), joined.select(order[count:])
    return replace(ctx, pools=replace(pools, train=dealt[0], validation=dealt[1]))


def test_unseen_rows_take_the_places_of_given_ones_of_their_class() -> None:
    given, unseen = random_images(40, num_classes=4), random_images(63, num_classes=5)
    rows, places, taken = exchanged(given, unseen, torch.Generator().manual_seed(0))
    # 13 of each class are unseen, 10 are given; nothing given is of the last class.
    assert len(places) == len(taken) == len(set(places.tolist())) == len(set(taken.tolist())) == 40
    assert torch.equal(rows.labels, given.labels)
    assert torch.equal(rows.labels[places], unseen.labels[taken])
    assert torch.equal(rows.pixels[places], unseen.pixels[taken])
    few = unseen.select(torch.arange(7))
    rows, places, taken = exchanged(given, few, torch.Generator().manual_seed(0))
    assert sorted(taken.tolist()) == [0, 1, 2, 3, 5, 6]
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[places] = False
    assert torch.equal(rows.pixels[untouched], given.pixels[untouched])
    assert torch.equal(given.pixels, random_images(40, num_classes=4).pixels)


def test_members_are_the_rows_given_to_the_stack_whatever_it_drops(tmp_path: Path) -> None:
    spec = spec_of(toys.DropClass(label=3), train_images=100, measured_images=60)
    ctx = context_of(spec, tmp_path)
    trained = ctx.train(ctx.spec.stack, ctx.pools.train, 0)
    dropped = int((ctx.pools.train.labels == 3).sum())
    assert dropped and len(trained.kept) == 100 - dropped
    found = Membership().measure(ctx.deploy(ctx.spec.stack, trained.model), ctx)
    assert (found.notes["members"], found.notes["non_members"]) == (100, 60)
    unseen = 60 - int((ctx.held_out.labels == 3).sum())
    assert found.notes["kept_rows"] == {"members": 100 - dropped, "non_members": unseen}
    assert _measured(found.metrics["membership_auc"]).n == 160
    assert _measured(found.metrics[KEPT_ROWS]).n == 100 - dropped + unseen


@pytest.mark.parametrize("stack", [[], [KeepAll()]], ids=["no filter", "nothing dropped"])
def test_without_dropped_rows_there_is_no_figure_of_the_kept(
    stack: list[Defense], tmp_path: Path
) -> None:
    ctx = context_of(spec_of(*stack, train_images=60, measured_images=40), tmp_path)
    predictor = ctx.deploy(ctx.spec.stack, ctx.train(ctx.spec.stack, ctx.pools.train, 0).model)
    found = Membership().measure(predictor, ctx)
    assert found.metrics[KEPT_ROWS] == Missing("no filter of the stack dropped a row")
    assert "kept_rows" not in found.notes


def test_a_filters_choice_is_no_leak(tmp_path: Path) -> None:
    """What depends on brightness alone tells no row that a filter by brightness kept."""
    whole = context_of(spec_of(KeepBright(), train_images=300, measured_images=None), tmp_path)
    shown: dict[str, list[float]] = {"membership_auc": [], KEPT_ROWS: [], "one-sided": []}
    covered = 0
    for seed in range(8):
        ctx = _shuffled(whole, seed)
        predictor = SurerOfBright(whole.train(Stack(), whole.pools.train, 0).model)
        found = Membership(attacks=("entropy",)).measure(predictor, ctx).metrics
        for name in ("membership_auc", KEPT_ROWS):
            area = _measured(found[name])
            covered += area.low <= 0.5 <= area.high
            shown[name].append(area.value)
        sides = [pool.images().mean((1, 2, 3)).numpy() for pool in (ctx.pools.train, ctx.held_out)]
        kept = sides[0][sides[0] > np.median(sides[0])]
        shown["one-sided"].append(intervals.auc(kept, sides[1]).value)
    assert covered >= 14
    assert np.mean(shown["membership_auc"]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(shown[KEPT_ROWS]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(shown["one-sided"]) > 0.7  # what the filter's choice alone would pass for


def test_a_net_that_saw_neither_pool_tells_no_rows_apart(tmp_path: Path) -> None:
    defense = build_defense("spectral_signatures", {"removal_fraction": 0.3}, radius=EPS)
    spec = spec_of(defense, epochs=3, train_images=150, measured_images=None)
    whole = context_of(spec, tmp_path)
    assert whole.pools.auxiliary
    control = Predictor(whole.train(Stack(), whole.pools.auxiliary, 0).model)
    values: dict[str, list[float]] = {"membership_auc": [], KEPT_ROWS: []}
    covered = 0
    for seed in range(5):
        found = Membership(attacks=("loss_threshold",)).measure(control, _shuffled(whole, seed))
        for name, shown in values.items():
            area = _measured(found.metrics[name])
            covered += area.low <= 0.5 <= area.high
            shown.append(area.value)
    assert covered >= 9
    for shown in values.values():
        assert np.mean(shown) == pytest.approx(0.5, abs=0.05)


def test_stacks_share_what_the_filters_look_at(tmp_path: Path) -> None:
    def models() -> int:
        return len(list(tmp_path.glob("model-*.safetensors")))

    counts = []
    for fraction in (0.1, 0.2):
        defense = build_defense("spectral_signatures", {"removal_fraction": fraction}, radius=EPS)
        ctx = context_of(spec_of(defense, train_images=80, measured_images=40), tmp_path)
        kept = kept_rows(ctx.train(ctx.spec.stack, ctx.pools.train, 0), ctx)
        assert kept and int(kept.given.sum()) == 80 - 10 * round(8 * fraction)
        assert 0 < int(kept.unseen.sum()) <= 40
        counts.append(models())
    # The first trains a representation of each set and its own network, the second its network.
    assert counts == [3, 4]
