"""What a run is made of besides its space: the images, and the user's own code.

A run's manifest keeps their fingerprints, so that no resume mixes results of two data sets or of
two versions of a model without a word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.run.manifest import read_manifest
from orchestrator.run.paths import MANIFEST, RunPaths
from trainables.datasets import Dataset
from trainables.errors import InputError
from trainables.imports import code_fingerprint
from trainables.models import is_own
from trainables.storage.folders import Folder
from trainables.storage.identity import identity_hash
from trainables.trial.context import TrialContext

_SHOWN = 12
"""Hexadecimal digits of a fingerprint that are printed."""
SUPERSEDED = ".superseded-"
"""Ending of what is set aside because it was made of other images or code, with their hash."""
_AT_START = "start"


@dataclass(frozen=True, slots=True)
class DataFound:
    """The images of a data set."""

    fingerprint: str
    images: int
    classes: int

    def words(self) -> str:
        """Return the numbers and the beginning of the fingerprint."""
        return (
            f"{self.images:,} images of {self.classes} classes, "
            f"fingerprint {self.fingerprint[:_SHOWN]}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Fingerprints of all that a run's trials are made of besides its space."""

    data: Mapping[str, DataFound] = field(default_factory=dict)
    """Data set and size of its images -> what was found there."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Import path of a user's model or defense, or place of a checkpoint -> fingerprint of its code
    and weights."""
    accepted: str = ""
    """Hash of data and code, once a resume has accepted others than the run began with."""

    def plain(self) -> dict[str, Any]:
        """Return them as plain JSON values, for the manifest."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "Inputs":
        """Read them back."""
        return Inputs(
            data={name: DataFound(**row) for name, row in plain["data"].items()},
            code=dict(plain["code"]),
            accepted=plain["accepted"],
        )

    def changes(self, now: "Inputs") -> list[str]:
        """Say in words what is not as it was; what is named in one of the two alone is no change.

        A space with a further defense is another space, and refused as such.
        """
        data = [
            f"the images of {name} changed ({was.words()} then; {found.words()} now)"
            for name, was in self.data.items()
            if (found := now.data.get(name)) is not None and found.fingerprint != was.fingerprint
        ]
        code = [
            f"the code or weights of {name} changed"
            for name, was in self.code.items()
            if now.code.get(name, was) != was
        ]
        return data + code


def found_data(dataset: Dataset) -> DataFound:
    """Count and fingerprint the images of a data set."""
    return DataFound(dataset.fingerprint, len(dataset.images), dataset.num_classes)


def found_inputs(datasets: Iterable[Dataset], contexts: Iterable[TrialContext]) -> Inputs:
    """Take the fingerprints of data sets and of the user's code in some stacks."""
    code: dict[str, str] = {}
    for ctx in contexts:
        if is_own(ctx.spec.model.name):
            code[ctx.spec.model.name] = ctx.model_code
        if ctx.spec.model.weights:
            code[ctx.spec.model.weights] = ctx.spec.model.weights_sha256
        for defense in ctx.spec.stack:
            if ":" in defense.name:
                code[defense.name] = code_fingerprint(defense.name, "defense")
    data = {f"{each.name} ({each.shape[1]}x{each.shape[2]})": found_data(each) for each in datasets}
    return Inputs(data=data, code=code)


def settled_inputs(
    manifest: Mapping[str, Any] | None, found: Inputs, paths: RunPaths, *, accept: bool
) -> Inputs:
    """Return the inputs that a run goes on with.

    Raises InputError, with what changed, where they are not those of the manifest, unless they are
    accepted: then its trials start again under new identities. A manifest of an earlier version
    holds none; the run goes on with those that are found.
    """
    if manifest is None or "inputs" not in manifest:
        return found
    known = Inputs.from_plain(manifest["inputs"])
    changes = known.changes(found)
    if not changes:
        return replace(found, accepted=known.accepted)
    if not accept:
        raise InputError(
            f"{paths.shown}: {'; '.join(changes)}; take another --name, or start its trials again "
            "with --accept-changes"
        )
    return replace(found, accepted=identity_hash({**found.plain(), "accepted": ""}))


def refuse_changes(manifest: Mapping[str, Any], found: Inputs, shown: str) -> None:
    """Raise InputError, with what changed, where the inputs are not those of a run's manifest."""
    if "inputs" not in manifest:
        return
    changes = Inputs.from_plain(manifest["inputs"]).changes(found)
    if changes:
        raise InputError(
            f"{shown}: {'; '.join(changes)}; bring back what the run was made of, or launch it "
            "again with --accept-changes"
        )


def set_aside(paths: RunPaths, before: str) -> int:
    """Rename the records, the study and the audit of a run; return the number of its records.

    Nothing is lost: each file stays where it was, under another ending that holds the hash of what
    had been accepted `before`.
    """
    ending = f"{SUPERSEDED}{before or _AT_START}"
    names = [entry.name for entry in paths.records.entries(".json")]
    _rename(paths.records, names, ending)
    audit = paths.audit
    _rename(audit.records, [entry.name for entry in audit.records.entries(".json")], ending)
    if read_manifest(audit) is not None:
        _rename(audit.folder, [MANIFEST], ending)
    if paths.journal.exists():
        paths.journal.replace(paths.journal.with_name(paths.journal.name + ending))
    return len(names)


def _rename(folder: Folder, names: Iterable[str], ending: str) -> None:
    for name in names:
        folder.write(name + ending, folder.read(name))
        folder.delete(name)
