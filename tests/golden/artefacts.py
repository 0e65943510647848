"""Golden artefact keys: what trials on the digits ask their store for."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.making import CPU, EPS, spec_of
from trainables.artefacts import Artefact, ArtefactStore
from trainables.defenses import build_defense
from trainables.spec import ModelSpec, TrialSpec
from trainables.threats import THREATS, build_threat
from trainables.trial import run_trial

VERSIONS = ("version", "training")
"""Entries of an identity that name the version of a stage, where they are whole numbers."""
_EVALUATION = "evaluation_"
_STACKS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "undefended": {},
    "adversarial training, fitted temperature": {
        "fgsm_adversarial_training": {},
        "temperature": {"T": "fit"},
    },
    "filter, label smoothing, gradient regularization": {
        "spectral_signatures": {},
        "label_smoothing": {},
        "gradient_regularization": {"lam": 1},
    },
    "early stopping": {"early_stopping": {}},
    "static fine-tuning": {"static_adversarial_finetuning": {}},
    "ensemble": {"ensemble": {}},
    "denoiser": {"denoiser": {}},
    "diffusion purification": {"diffusion_purification": {}},
    "PixelDP": {"pixeldp": {"placement": "layer1", "draws": 4, "n": 20}},
    "an own defense": {"tests.golden.own:Dimming": {"factor": 0.8}},
}


class NotBuiltError(RuntimeError):
    """An artefact was asked for that is too expensive to build."""


@dataclass(slots=True, kw_only=True)
class Case:
    """A trial, and which artefacts it is not to build."""

    spec: TrialSpec
    unbuilt: tuple[str, ...] = ()
    """Kinds at which the trial may end."""
    measured: tuple[str, ...] = ()
    """Threats that run; of the others the evaluation is asked for alone."""


class NotingStore(ArtefactStore):
    """A store that notes what it is asked for."""

    def __init__(self, root: Path, case: Case) -> None:
        super().__init__(root)
        self.case = case
        self.asked: dict[str, dict[str, Any]] = {}

    def get_or_build(
        self, kind: str, identity: Mapping[str, Any], builder: Callable[[], Artefact]
    ) -> Artefact:
        """Note the request; return an empty evaluation of a threat that does not run."""
        self.asked[self.key(kind, identity)] = {"kind": kind, "identity": dict(identity)}
        if kind in self.case.unbuilt:
            raise NotBuiltError(kind)
        threat = kind.removeprefix(_EVALUATION)
        if kind.startswith(_EVALUATION) and threat not in self.case.measured:
            return Artefact({}, {"metrics": {}, "notes": {}, "used": {}})
        return super().get_or_build(kind, identity, builder)


def cases() -> dict[str, Case]:
    """List the trials whose artefact keys are golden."""
    every = [
        build_threat(name, {}, radius=EPS) for name, kind in THREATS.items() if kind.repeatable
    ]
    found = {
        name: Case(
            spec=spec_of(
                *(build_defense(each, raw, radius=EPS) for each, raw in stack.items()),
                threats=every,
                train_images=100,
                measured_images=30,
            )
        )
        for name, stack in _STACKS.items()
    }
    found["all rows"] = Case(
        spec=spec_of(epochs=30, train_images=None, measured_images=None), unbuilt=("model",)
    )
    found["an own model"] = Case(
        spec=spec_of(
            threats=every,
            train_images=100,
            measured_images=30,
            model=ModelSpec(name="tests.golden.own:linear"),
        )
    )
    found["shadow models"] = _measuring("membership", attacks=["lira_offline"], shadows=2)
    found["poisoned twin"] = _measuring("backdoor")
    found["decoder"] = _measuring("inversion", unbuilt=("decoder",), prior="generative")
    return found


def _measuring(name: str, *, unbuilt: tuple[str, ...] = (), **raw: Any) -> Case:
    threat = build_threat(name, raw, radius=EPS)
    spec = spec_of(threats=[threat], train_images=100, measured_images=30)
    return Case(spec=spec, unbuilt=unbuilt, measured=(name,))


def asked(case: Case, folder: Path) -> dict[str, dict[str, Any]]:
    """Run a trial and return key -> kind and identity of each artefact that it asked for."""
    store = NotingStore(folder, case)
    # The path of LPIPS weights is a part of an evaluation's identity; here there are none.
    with patch.dict(os.environ, {"TORCH_HOME": str(folder)}):
        record = run_trial(case.spec, store, device=CPU)
    if record.error is not None and NotBuiltError.__name__ not in record.error:
        raise RuntimeError(record.error)
    return store.asked


def keys(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Compute the golden content of every case: key, kind and identity of its artefacts."""
    return {
        name: [{"key": key, **row} for key, row in asked(case, folder).items()]
        for name, case in cases().items()
    }


@dataclass(slots=True)
class Difference:
    """How a recorded identity is met by what is asked for now."""

    raised: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Entry -> recorded and present version, where they differ."""
    others: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Place -> recorded and present value of everything else that differs."""


def with_versions_of(recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the recorded versions of stages in place of its own."""
    taken = {
        name: recorded[name]
        for name in VERSIONS
        if isinstance(recorded.get(name), int) and isinstance(identity.get(name), int)
    }
    return {**identity, **taken}


def difference(recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> Difference:
    """Compare two identities, versions of stages apart from everything else."""
    found = Difference()
    for place, old, new in _leaves(recorded, identity):
        if place in VERSIONS and isinstance(old, int) and isinstance(new, int):
            found.raised[place] = (old, new)
        else:
            found.others[place] = (old, new)
    return found


def _leaves(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            inner = f"{place}.{name}" if place else name
            yield from _leaves(old.get(name), new.get(name), inner)
    elif old != new:
        yield place, old, new
