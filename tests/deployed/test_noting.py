"""The pools of what is shipped, and what a deployment fits."""

from functools import partial
from pathlib import Path

import pytest
import torch

from tests.making import EPS, context_of, spec_of
from trainables.defenses import build_defense
from trainables.deployed.fits import Fitted, Fitting
from trainables.deployed.noting import context_without_data, deploy_noting
from trainables.errors import InputError
from trainables.records.value import Missing
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.threats import THREATS, build_threat
from trainables.trial.settings import DataSpec
from trainables.trial.stages import run_trial


def _made(name: str) -> Artefact:
    return Artefact(values={"name": name})


def test_what_is_fitted_is_given_back_under_the_same_names_in_the_same_order() -> None:
    fitting = Fitting()
    for name, number in (("threshold", "0"), ("member1", "1"), ("threshold", "2")):
        fitting.take(name, partial(_made, number))
    assert list(fitting.noted) == ["threshold", "member1", "threshold-2"]
    fitted = Fitted(fitting.noted)
    given = [fitted.take(name, _refuse).values["name"] for name in ("threshold", "threshold")]
    assert given == ["0", "2"] and fitted.left == ["member1"]
    with pytest.raises(InputError, match="'threshold-3', which was not fitted"):
        fitted.take("threshold", _refuse)


def _refuse() -> Artefact:
    raise AssertionError("nothing is fitted where there is no data")


def test_what_a_builder_fits_on_its_way_is_its_own_affair() -> None:
    fitting = Fitting()
    fitting.take("outer", lambda: fitting.take("inner", lambda: _made("inner")))
    assert list(fitting.noted) == ["outer"]


def test_pools_are_closed_again_after_a_builder_that_failed() -> None:
    fitting = Fitting()

    def fail() -> Artefact:
        assert fitting.open
        raise ValueError("no fit")

    with pytest.raises(ValueError, match="no fit"):
        fitting.take("toy", fail)
    assert not fitting.open and fitting.noted == {}


def test_a_context_without_data_has_neither_pools_nor_store(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    bare = context_without_data(ctx.spec, ctx.dataset, Fitted({}), ctx.device)
    assert bare.dataset.shape == ctx.dataset.shape and len(bare.dataset.images) == 0
    for look in (lambda: bare.pools.train, lambda: bare.store.progress("model")):
        with pytest.raises(InputError, match=r"a bundle has no ctx\."):
            look()


def test_noting_changes_no_answer(tmp_path: Path) -> None:
    ctx = context_of(spec_of(build_defense("mahalanobis_detector", {}, radius=EPS)), tmp_path)
    model = ctx.train(ctx.spec.stack, ctx.pools.train, 0).model
    x, plain = ctx.pools.test.images(), ctx.deploy(ctx.spec.stack, model)
    noting, noted = deploy_noting(ctx, ctx.spec.stack, model)
    assert set(noted) == {"distance", "threshold"}
    first, second = (p.predict(x, torch.Generator()) for p in (plain, noting))
    assert torch.equal(first.label, second.label)
    assert first.reject_score is not None and second.reject_score is not None
    assert torch.equal(first.reject_score, second.reject_score)


def test_a_part_of_the_training_data_is_never_deployed() -> None:
    with pytest.raises(InputError, match="leave train_images out"):
        DataSpec(pools="deployment", train_images=100)


@pytest.mark.parametrize("name", ["membership", "inversion"])
def test_threats_that_want_other_pools_use_what_there_is(name: str, tmp_path: Path) -> None:
    raw = {"membership": {"shadows": 2}, "inversion": {"steps": 5}}[name]
    threat = build_threat(name, raw, radius=EPS)
    spec = spec_of(threats=[threat], train_images=None, measured_images=60, pools="deployment")
    record = run_trial(spec, ArtefactStore(tmp_path), device=torch.device("cpu"))
    assert record.status == "completed", record.error
    found = {metric: record.metrics[metric] for metric in THREATS[name]().metric_names()}
    measured = [value for value in found.values() if not isinstance(value, Missing)]
    assert measured and all(v.reason for v in found.values() if isinstance(v, Missing))
