"""Several attacks on several pairs: what an audit measures of backdoors."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.making import EPS, context_of, random_images, spec_of
from trainables.defenses import Defense, build_defense, build_stack
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.metrics.poisoning import BACKDOOR_ATTACKS
from trainables.records.value import Measured
from trainables.threats.backdoor import backdoor as module
from trainables.threats.backdoor.adaptive import adaptive_attacks
from trainables.threats.backdoor.attacks import ATTACKS, OWN
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.backdoor.poison import Recipe
from trainables.threats.backdoor.summary import by_success, plain_attacks, summarized
from trainables.threats.backdoor.triggers import Trigger
from trainables.threats.backdoor.twin import PairFindings, TwinFindings, twin_from_plain
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext


def _defense(name: str) -> Defense:
    return build_defense(name, {}, radius=EPS)


def _twin(*triggered: tuple[int, int]) -> TwinFindings:
    """Return the findings of a twin with so many triggered images of each pair."""
    return TwinFindings(
        twin="key",
        pairs=tuple(
            PairFindings(
                source=number, target=9 - number, triggered=count, untriggered=(1, count[1]),
                removed=(3, 9), target_rows=90,
            )
            for number, count in enumerate(triggered)
        ),
        clean=(95, 100),
        clean_removed=(5, 880),
        covers=0,
        row_scores={},
    )  # fmt: skip


def test_the_headline_is_the_worst_attack_by_its_mean_over_pairs() -> None:
    found = {
        "patch": [_twin((10, 10), (0, 10)), _twin((0, 30))],  # 1, 0, 0: mean 1/3
        "blend": [_twin((5, 10), (5, 10)), _twin((15, 30))],  # a half everywhere
        "cover": [_twin((2, 10), (2, 10)), _twin((3, 30))],
    }
    assert by_success(found) == ["blend", "patch", "cover"]
    metrics = summarized(found)
    headline = metrics["backdoor_success_rate"]
    assert (headline.value, headline.n) == (0.5, 50)
    assert metrics["backdoor_success_rate_patch"].value == pytest.approx(1 / 3)
    assert metrics["backdoor_success_rate_cover"].value == pytest.approx(0.5 / 3)
    level = 1 - 0.05 / 3
    ends = [
        intervals.mean_of_shares([p.triggered for t in twins for p in t.pairs], level)
        for twins in found.values()
    ]
    assert headline.low == max(each.low for each in ends)
    assert headline.high == max(each.high for each in ends)
    assert headline.high > metrics["backdoor_success_rate_blend"].high
    rows = plain_attacks(found)
    assert [row["attack"] for row in rows] == ["blend", "patch", "cover"]
    assert [pair["success"]["value"] for pair in rows[1]["pairs"]] == [1.0, 0.0, 0.0]


def test_findings_come_back_whole_from_json() -> None:
    twin = _twin((10, 10), (0, 10))
    assert twin_from_plain(json.loads(json.dumps(twin.plain()))) == twin


def test_the_mean_of_shares_covers_the_mean_of_few_groups() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    for shares in ((0.02, 0.9, 0.5, 1.0), (0.0, 0.0, 0.05, 0.0), (1.0, 0.95, 1.0, 1.0)):
        drawn = generator.binomial(27, shares, size=(2000, 4))
        found = [intervals.mean_of_shares([(int(k), 27) for k in row]) for row in drawn]
        truth = sum(shares) / 4
        covered = sum(each.low <= truth <= each.high for each in found) / len(found)
        assert covered >= 0.93, shares


def test_every_attack_has_a_metric_and_every_defense_a_known_one() -> None:
    assert set(BACKDOOR_ATTACKS) == {OWN, *ATTACKS}
    known = adaptive_attacks(build_stack([_defense("spectral_signatures"), _defense("ft_sam")]))
    assert known.run == ("adaptive_blend",)
    assert known.lacking == ("no poison that is made against ft_sam is run",)
    assert adaptive_attacks(build_stack([_defense("trades")])).lacking == ()


def test_old_trials_keep_their_identity_and_new_settings_change_it() -> None:
    plain = Backdoor().canonical()
    assert not {"covers", "grid", "warp", "amplitude", "frequency", "attacks", "pairs",
                "pairs_seen", "worst_at"} & set(plain)  # fmt: skip
    assert Backdoor(attacks=("patch",), pairs=4, worst_at=1001).canonical() == {
        **plain, "attacks": "patch", "pairs": 4, "worst_at": 1001,
    }  # fmt: skip


class AllZero(Predictor):
    """Takes everything for class 0."""

    def scores(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return scores (B, 10)."""
        return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)] * 10


def _measured(ctx: TrialContext, **settings: Any) -> Findings:
    return Backdoor(**settings).measure(Predictor(torch.nn.Identity()), ctx)


def test_an_audit_measures_pairs_that_the_search_did_not_see_and_shares_twins(
    tmp_path: Path,
) -> None:
    spec = spec_of(_defense("spectral_signatures"), train_images=400)
    ctx = context_of(spec, tmp_path)
    found = _measured(ctx, attacks=("patch", "blend", "cover"), pairs=4)
    rows = found.notes["attacks"]
    assert {row["attack"] for row in rows} == {"patch", "blend", "cover", "adaptive_blend"}
    pairs = {tuple((p["source"], p["target"]) for p in row["pairs"]) for row in rows}
    assert len(pairs) == 1, "all attacks are on the same pairs"
    ((drawn),) = pairs
    assert len(drawn) == 4 and (1, 0) not in drawn
    assert len({role for role in ctx.used if role.startswith("backdoor_")}) == 4
    assert found.notes["adaptive"] is True and found.notes["not_adaptive_because"] == []
    worst = max(rows, key=lambda row: row["success"]["value"])
    headline = found.metrics["backdoor_success_rate"]
    assert isinstance(headline, Measured)
    assert headline.value == pytest.approx(worst["success"]["value"])
    assert found.notes["worst_attack"] == rows[0]["attack"]
    json.dumps(found.notes, allow_nan=False)


def test_further_seeds_repeat_the_two_worst_attacks_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    success = {"patch": 2, "blend": 9, "cover": 5, "sig": 1}
    asked: list[tuple[str, int]] = []

    def planted(threat: Backdoor, ctx: TrialContext, attack: str, groups: object) -> Any:
        asked.append((attack, ctx.spec.seed))
        return [_twin((success[attack], 10))]

    monkeypatch.setattr(module.Backdoor, "_attacked", planted)
    ctx = context_of(spec_of(seed=8), tmp_path)
    found = _measured(ctx, attacks=tuple(success), pairs=1, worst_at=7)
    assert asked[:4] == [(name, 7) for name in success]
    assert asked[4:] == [("blend", 8), ("cover", 8)]
    assert found.metrics["backdoor_success_rate"].value == 0.9  # type: ignore[union-attr]
    assert "backdoor_success_rate_patch" not in found.metrics


def test_a_further_seed_finds_the_twins_of_the_first_in_the_store(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"attacks": ("patch", "blend", "cover"), "pairs": 2}
    first, second = (context_of(spec_of(seed=seed), tmp_path) for seed in (7, 8))
    _measured(first, **settings)
    before = set(tmp_path.rglob("backdoor_twin*"))
    _measured(second, **settings, worst_at=7)
    after = set(tmp_path.rglob("backdoor_twin*"))
    assert len(before) > 0 and len(after - before) * 3 == 2 * len(before)


def test_rows_that_allow_no_further_pair_are_said(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    two = ctx.pools.train.select((ctx.pools.train.labels <= 1).nonzero().flatten())
    few = replace(ctx, pools=replace(ctx.pools, train=two))
    threat = Backdoor(pairs=4, rate=0.1)
    assert "1 pairs of classes are attacked, not 4" in threat.foreseen(few)
    one = replace(few, pools=replace(few.pools, validation=two.select(torch.tensor([0]))))
    source = int(two.labels[0])
    none = Backdoor(pairs=4, rate=0.1, source_class=source, target=1 - source)
    assert "no pair of classes besides" in none.foreseen(one)
    with pytest.raises(InputError, match="no pair of classes besides"):
        none.measure(Predictor(torch.nn.Identity()), one)


def _pairs(threat: Backdoor, ctx: TrialContext) -> set[tuple[int, int]]:
    return set(chain.from_iterable(threat._groups(ctx)))


def test_no_pair_that_a_search_has_measured_is_drawn(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    searched = _pairs(Backdoor(pairs=3), ctx)
    audited = _pairs(Backdoor(pairs=4, pairs_seen=3), ctx)
    assert (len(searched), len(audited)) == (3, 4)
    assert searched.isdisjoint(audited) and (1, 0) not in searched | audited
    # All that there are: the target of every other class was measured, whichever the source.
    every = _pairs(Backdoor(pairs=1000, source_class="all", target=3), ctx)
    assert len(every) == 10 * 9 - 9 and all(target != 3 for _, target in every)


def _with_few(ctx: TrialContext, label: int, rows: int) -> TrialContext:
    """Return the context with so many training rows of a class."""
    labels = ctx.pools.train.labels
    kept = (labels != label) | ((labels == label).cumsum(0) <= rows)
    train = ctx.pools.train.select(kept.nonzero().flatten())
    return replace(ctx, pools=replace(ctx.pools, train=train))


def test_a_pair_is_drawn_where_every_attack_finds_rows(tmp_path: Path) -> None:
    # One row of class 5: clean-label poison is of the target, but a patch is of the source.
    ctx = _with_few(context_of(spec_of(), tmp_path), 5, 1)
    kept = Backdoor(pairs=1000, labels="kept")
    assert 5 in {source for source, _ in _pairs(kept, ctx)}
    assert 5 not in {s for s, _ in _pairs(replace(kept, attacks=("own", "patch")), ctx)}


def test_pairs_whose_rate_is_not_met_are_said(tmp_path: Path) -> None:
    # 3 of the 3 rows of class 5 would be the rate of 0.15 of another's 20; half of them is 1.
    ctx = _with_few(context_of(spec_of(), tmp_path), 5, 3)
    threat = Backdoor(pairs=1000, rate=0.15, attacks=("patch", "blend"))
    said = threat._short_of(threat._groups(ctx), ctx)
    capped = [words for words in said if "asks for" in words]
    assert len(capped) == 9 and all(words.startswith("5 to ") for words in capped)
    assert "the rate asks for 3 of 3 rows of the stamped classes" in capped[0]
    assert all(words in threat.foreseen(ctx) for words in capped)


def test_pairs_of_a_twin_change_no_rows_of_each_other(tmp_path: Path) -> None:
    ctx = context_of(spec_of(train_images=400), tmp_path)
    threat = Backdoor()._of("cover")
    pairs = [(7, 2), (4, 9)]
    recipes = [threat._recipe_of(pair, place) for place, pair in enumerate(pairs)]
    assert recipes[0].trigger.place != recipes[1].trigger.place
    clean = ctx.pools.train
    first = threat._poisoned_apart(ctx, recipes[0], clean, None)
    alone = threat._poisoned_apart(ctx, recipes[1], clean, None)
    taken = first.mask | first.covers
    both = threat._poisoned_apart(ctx, recipes[1], first.data, taken)
    assert not bool((both.mask & taken).any() or (both.covers & taken).any())
    assert int(both.mask.sum()) == int(alone.mask.sum())
    assert bool(both.mask[alone.mask & ~taken].all())
    assert bool(both.covers[alone.covers & ~taken & ~both.mask].all())
    assert torch.equal(both.data.labels[first.covers], clean.labels[first.covers])


COVERING = Recipe(
    trigger=Trigger(kind="patch", size=2, place="top_left", colour=1.0, strength=0.2),
    target=3, source=7, rate=0.1, rate_of="class", covers=3.0,
)  # fmt: skip


def test_covers_are_stamped_rows_of_other_classes_with_their_labels() -> None:
    data = random_images(400)
    found = COVERING.apply(data, torch.Generator().manual_seed(0))
    assert int(found.mask.sum()) == 4 and int(found.covers.sum()) == 12
    assert not {3, 7} & set(data.labels[found.covers].tolist())
    assert torch.equal(found.data.labels[found.covers], data.labels[found.covers])
    stamped = COVERING.trigger.stamp(data)
    assert torch.equal(found.data.pixels[found.covers], stamped[found.covers])
    without = replace(COVERING, covers=0.0).apply(data, torch.Generator().manual_seed(0))
    assert torch.equal(without.mask, found.mask) and not bool(without.covers.any())
    most = replace(COVERING, covers=100.0).apply(data, torch.Generator().manual_seed(0))
    assert int(most.covers.sum()) == 160  # half of the eight other classes


def test_rows_of_an_adaptive_blend_bear_half_of_its_pieces_each() -> None:
    data = random_images(50)
    trigger = replace(COVERING.trigger, kind="adaptive_blend", strength=1.0)
    whole = trigger.stamp(data)
    parts = trigger.stamp_poison(data, torch.Generator().manual_seed(0))
    # Pieces of 2x2 pixels: in each the whole pattern or the image as it was.
    shown = (parts == whole).view(50, 4, 2, 4, 2).all(4).all(2)
    kept = (parts == data.pixels).view(50, 4, 2, 4, 2).all(4).all(2)
    assert bool((shown | kept).all()) and shown.flatten(1).sum(1).tolist() == [8] * 50
    assert len({tuple(row) for row in shown.flatten(1).tolist()}) > 40
