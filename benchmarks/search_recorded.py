"""Which search finds the better trade-offs: replayed on trials that were run, paired by seed.

    python -m benchmarks.search_recorded [--seeds 20] [--trials 30] [--searches ..]
    python -m benchmarks.search_recorded --record --store FOLDER [--seconds 500]

The space is search_recorded.yaml: a few defenses of `full` with a setting or two each, on 300
digits. Every stack that it can draw was run once, and search_recorded.json holds what came out, so
that a search may ask for any of them and nothing is modelled or interpolated. The hypervolume is
that of the recorded values, of which a search is told too; a trial that shows signs of masking
counts for nothing. There is one landscape, with the luck of one training a stack: the seeds are
those of the searches alone. `--record` runs what is not recorded yet, low stacks first; it may be
ended and begun again, and keeps its networks in FOLDER.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.searches import SEARCHES, USUAL, Floats, Outcome, compare, hypervolume
from orchestrator.search.stacks import filled_slots
from search_spaces import Overrides, Space, load_space
from search_spaces.domains import Flat
from search_spaces.schema import NONE
from trainables.errors import InputError
from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import conv_layer, dense_layer, named_stem
from trainables.records.record import TrialRecord
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.stages import run_trial

SPACE = Path(__file__).with_suffix(".yaml")
RECORD = Path(__file__).with_suffix(".json")
_STRIKES = {"evasion": {"masking": {"strikes": True}}}
"""Notes of a trial whose robust accuracy is not to be believed."""
Row = dict[str, Any]


def small_network(**shape: Any) -> nn.Module:
    """Build two 3x3 convolutions (12, 24), a max-pool and a dense layer of 64 features."""
    arguments = ModelArguments(**shape, norm="none", activation="relu")
    width = 24 * (arguments.height // 2) * (arguments.width // 2)
    return Classifier(
        arguments,
        stem=named_stem(
            conv_layer(arguments, arguments.channels, 12, 3, padding=1),
            conv_layer(arguments, 12, 24, 3, padding=1),
        ),
        body=nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), dense_layer(arguments, width, 64)),
        head=nn.Linear(64, arguments.num_classes),
    )


class Recorded:
    """What every stack did when it was run."""

    def __init__(self, space: Space, rows: Sequence[Row]) -> None:
        self.space = space
        self._names = [objective.metric for objective in space.objectives]
        self._rows = {_key(space, row["stack"]): row for row in rows}
        lacking = [flat for flat in stacks(space) if _key(space, flat) not in self._rows]
        if lacking:
            raise InputError(
                f"{len(lacking)} stacks of {space.name} are not recorded, such as "
                f"{_key(space, lacking[0])}; run with --record"
            )

    def truth(self, ran: Flat) -> Floats | None:
        """Return the recorded objectives of a stack; None where it shows signs of masking."""
        row = self._rows[_key(self.space, ran)]
        return None if row["masked"] else np.array([row[name][0] for name in self._names])

    def outcome(self, ran: Flat, generator: np.random.Generator) -> Outcome:
        """Return what was recorded."""
        del generator
        row = self._rows[_key(self.space, ran)]
        metrics = {
            name: Measured(row[name][0], row[name][0], row[name][0], row[name][1])
            for name in self._names
        }
        return Outcome(metrics=metrics, notes=_STRIKES if row["masked"] else {})


def _key(space: Space, flat: Mapping[str, Any]) -> str:
    """Return a stack's name: its defenses with the settings that are drawn."""
    parts = []
    for slot in filled_slots(space, flat):
        defense = flat[f"slot.{slot}"]
        drawn = sorted(space.names_by_defense[defense] & set(flat))
        parts.append("".join([defense, *(f" {flat[name]}" for name in drawn)]))
    return " + ".join(parts)


def stacks(space: Space) -> list[Flat]:
    """Return every stack of a finite space that is not cut: low ones first, then by training."""
    found = [flat for flat in space.enumerate() if space.ran(flat) == flat]
    return sorted(found, key=lambda flat: (len(filled_slots(space, flat)), _training(space, flat)))


def _training(space: Space, flat: Flat) -> str:
    """Return what tells trained networks apart, so that those of one network stand together."""
    return json.dumps(space.spec(flat).stack.training_identity())


def read_rows(path: Path = RECORD) -> list[Row]:
    """Read the recorded rows; none where there is no record yet."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def _write_rows(rows: Sequence[Row]) -> None:
    lines = ",\n".join(json.dumps(row) for row in rows)
    RECORD.write_text(f"[\n{lines}\n]\n")


def record(space: Space, store: Path, seconds: float) -> None:
    """Run the stacks that are not recorded, until the time is over."""
    rows, started = read_rows(), time.monotonic()
    known = {_key(space, row["stack"]) for row in rows}
    left = [flat for flat in stacks(space) if _key(space, flat) not in known]
    artefacts = ArtefactStore(store)
    for done, flat in enumerate(left):
        if time.monotonic() - started > seconds:
            print(f"{len(left) - done} stacks are left", flush=True)
            break
        before = time.process_time()
        found = run_trial(space.spec(flat), artefacts, sampled=flat, device=torch.device("cpu"))
        rows.append(_row(space, flat, found))
        _write_rows(rows)
        print(f"{time.process_time() - before:5.2f} s  {_key(space, flat)}", flush=True)


def _row(space: Space, flat: Flat, found: TrialRecord) -> Row:
    if found.error is not None:
        raise RuntimeError(f"{_key(space, flat)}: {found.error}")
    row: Row = {"stack": {name: value for name, value in flat.items() if value != NONE}}
    for objective in space.objectives:
        value = found.metrics[objective.metric]
        if not isinstance(value, Measured):
            raise RuntimeError(f"{_key(space, flat)}: {objective.metric}: {value.reason}")
        row[objective.metric] = [round(value.value, 6), value.n]
    return row | {"masked": found.is_struck_off}


def main() -> None:
    """Replay every search, and print a line a search; or record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--searches", default=",".join(USUAL), help=f"of {', '.join(SEARCHES)}")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--store", type=Path, help="folder of the networks, for --record")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    space = load_space(str(SPACE), Overrides(trials=asked.trials))
    if asked.record:
        if asked.store is None:
            parser.error("--record needs --store")
        record(space, asked.store, asked.seconds)
        return
    landscape, known = Recorded(space, read_rows()), stacks(space)
    whole = hypervolume(space, landscape, known)
    print(f"{asked.trials} of {len(known)} trials, {asked.seeds} seeds; all of them: {whole:.4f}")
    compare(space, [landscape] * asked.seeds, asked.searches.split(","))


if __name__ == "__main__":
    main()
