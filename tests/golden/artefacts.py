"""Golden artefact keys: what trials on the digits ask their store for."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.making import CPU, EPS, spec_of
from trainables.defenses import build_defense
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.storage.identity import canonical_json
from trainables.threats import THREATS, build_threat
from trainables.trial.settings import ModelSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial

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
    "ensemble": {"ensemble": {"size": 2}},
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
            ),
            unbuilt=("denoiser", "diffusion_model"),
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


def compared(recorded: Mapping[str, Any], asked: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what is wrong where no request has the recorded key; None where one has.

    A request counts with the recorded versions of its stages, which may have been raised since.
    """
    rows = [row["identity"] for row in asked if row["kind"] == recorded["kind"]]
    differences = [_difference(recorded["identity"], identity) for identity in rows]
    head = f"the key of {recorded['kind']} is not {recorded['key']}"
    if not differences:
        return f"{head}: nothing of this kind is asked for"
    raised, others = min(differences, key=lambda found: len(found[1]))
    lowered = [name for name, (old, new) in raised.items() if new < old]
    if lowered:
        return f"{head}: {lowered[0]} was lowered, so that old artefacts are taken for new ones"
    if not others:
        return None
    why = "more than its version differs" if raised else "it differs although no version was raised"
    shown = [
        f"{place}: {json.dumps(old)} was recorded, {json.dumps(new)} now"
        for place, (old, new) in others.items()
    ]
    return f"{head}; {why}. " + "; ".join(shown)


def _difference(
    recorded: Mapping[str, Any], identity: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[Any, Any]]]:
    """Compare two identities: the versions of stages, and everything else, where they differ."""
    versions, others = {}, {}
    present = json.loads(canonical_json(identity))
    for place, old, new in _leaves(json.loads(canonical_json(recorded)), present):
        if place in VERSIONS and isinstance(old, int) and isinstance(new, int):
            versions[place] = (old, new)
        else:
            others[place] = (old, new)
    return versions, others


def _leaves(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield place, old and new value of everything that differs; a lacking entry is `nothing`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            inner = f"{place}.{name}" if place else name
            if (name in old) != (name in new):
                yield inner, old.get(name, "nothing"), new.get(name, "nothing")
            else:
                yield from _leaves(old[name], new[name], inner)
    elif old != new:
        yield place, old, new
