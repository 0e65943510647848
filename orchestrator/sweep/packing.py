"""How much of a GPU each trial gets: as set, or as much as trials like it were measured to need.

Peaks sharing (`--gpus-per-trial auto`) rests on three things. A trial of a kind that was not
measured yet takes a whole GPU. One that was measured gets the smallest share that holds the peak of
its kind with room to spare. And the worker caps each trial at its share, so that one which outgrows
it fails alone, and is run once more on a whole GPU. Knows nothing of Ray.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.search.proposals import Proposal
from orchestrator.sweep.resources import MOST_ON_A_GPU
from trainables.records.record import TrialRecord
from trainables.storage.identity import identity_hash

WHOLE = 1.0
HEADROOM = 1.2
"""A share holds this many times the measured peak."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What a trial's GPU memory depends on."""

    kind: str
    """The hash of what must be equal: data, network, threats and effort."""
    sizes: Mapping[str, int]
    """What may be smaller but not larger: the batch, each defense and its whole numbers."""


def weight_of(spec: Mapping[str, Any]) -> Weight:
    """Weigh a canonical spec."""
    sizes = {"batch_size": int(spec["training"]["batch_size"])}
    for defense in spec["stack"]:
        sizes[defense["name"]] = 1
        for parameter, value in defense.items():
            if isinstance(value, int) and not isinstance(value, bool):
                sizes[f"{defense['name']}.{parameter}"] = value
    same = {name: spec[name] for name in ("data", "model", "threats", "effort")}
    return Weight(identity_hash(same), sizes)


class Peaks:
    """The peaks that were measured, and the share that follows from them."""

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        self._peaks: list[tuple[Weight, int]] = []
        self._smallest_gpu: int | None = None
        for record in records:
            self.learn(record)

    def learn(self, record: TrialRecord) -> None:
        """Note a completed trial's peak; one that failed may have stopped before it."""
        peak, total = (record.hardware.get(name) for name in ("gpu_peak_mib", "gpu_total_mib"))
        if record.status != "completed" or peak is None or total is None:
            return
        weight = weight_of(record.spec)
        self._peaks.append((weight, int(peak)))
        self._smallest_gpu = min(int(total), self._smallest_gpu or int(total))

    def share(self, spec: Mapping[str, Any]) -> float | None:
        """Return the share of a GPU that a trial needs; None where no trial like it was
        measured.
        """
        weight = weight_of(spec)
        parts = [(seen, peak) for seen, peak in self._peaks if _part(seen, weight)]
        names = {
            name
            for name, size in weight.sizes.items()
            if any(seen.sizes.get(name, 0) >= size for seen, _ in parts)
        }
        if not parts or names != set(weight.sizes) or self._smallest_gpu is None:
            return None
        needed = HEADROOM * max(peak for _, peak in parts)
        fitting = min(MOST_ON_A_GPU, int(self._smallest_gpu / needed))
        # Cut to four digits, Ray's own grain: so many shares never add up to more than one.
        return WHOLE if fitting < 2 else int(1e4 / fitting) / 1e4


class Packing:
    """Assigns each trial its GPUs, and keeps count of those that are not back yet."""

    def __init__(self, gpus: float, *, auto: bool, records: Iterable[TrialRecord] = ()) -> None:
        self.gpus = gpus
        self.measured = Peaks(records) if auto else None
        self.again: deque[Proposal] = deque()
        """Trials that outgrew their share or lost their worker; they are run once more."""
        self._live: dict[str, float] = {}
        self._being_measured: set[str] = set()
        self._grown_out: set[str] = set()

    def may_propose(self, gpus_there: Callable[[], float]) -> bool:
        """Return whether another trial may be proposed now, with so many GPUs in the cluster.

        While as many trials are being measured as there are GPUs, the next one waits: it might take
        a whole GPU as well, when in a moment it will be known that a share does. It would also keep
        those that are measured from ever getting a whole GPU.
        """
        measured = len(self._being_measured)
        return measured == 0 or measured < int(gpus_there())

    def give(self, proposal: Proposal) -> float:
        """Settle a trial's GPUs."""
        trial, gpus = proposal.spec.trial, self.gpus
        if trial in self._grown_out:
            gpus = WHOLE
            self._being_measured.add(trial)
        elif self.measured is not None:
            known = self.measured.share(proposal.spec.canonical())
            gpus = WHOLE if known is None else known
            if known is None:
                self._being_measured.add(trial)
        self._live[trial] = gpus
        return gpus

    def take_back(self, trial: str, record: TrialRecord | None) -> None:
        """Take back what a trial had that has ended, and learn from its record."""
        self._live.pop(trial, None)
        self._being_measured.discard(trial)
        if self.measured is not None and record is not None:
            self.measured.learn(record)

    def grew_out(self, proposal: Proposal) -> float:
        """Have a trial run once more, on a whole GPU; return the share that was too small."""
        self._grown_out.add(proposal.spec.trial)
        self.again.append(proposal)
        return self._live.pop(proposal.spec.trial)

    def start_anew(self, proposal: Proposal) -> None:
        """Have a trial whose worker was lost run once more, with GPUs as before."""
        self.take_back(proposal.spec.trial, None)
        self.again.append(proposal)


def _part(seen: Weight, weight: Weight) -> bool:
    """Return whether a measured trial speaks for another: it has no defense that the other
    lacks.
    """
    return seen.kind == weight.kind and seen.sizes.keys() <= weight.sizes.keys()
