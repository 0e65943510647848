"""What `launch` was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.loader import Overrides

if TYPE_CHECKING:
    from orchestrator.sweep.resources import Gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What `launch` was asked for."""

    space: str
    overrides: Overrides
    runs: str
    """A folder's path, or a URI."""
    name: str | None
    data_dir: str | None
    lpips_weights: str | None
    address: str | None
    max_concurrent: int | None
    cpus_per_trial: float | None
    gpus_per_trial: Gpus | None
    max_gpu_hours: float | None
    time_budget: str | None
    trial_time_limit: float | None
    """Seconds."""
    trial_memory_gib: float | None
    dry_run: bool
    download: bool
    accept_changes: bool = False
    """Whether a resume may go on with other images or code than the run began with."""
    audit: bool = True
    """Whether the best are audited after the search."""
    audit_candidates: int | None = None
    """Most of them; None: as the space says."""
    audit_seeds: int | None = None

    @property
    def run_name(self) -> str:
        """The run's name: as asked, else from what makes it another run than the space's own."""
        return self._default_name() if self.name is None else self.name

    def _default_name(self) -> str:
        parts = [Path(self.space).stem]
        overrides = self.overrides
        for part in (overrides.dataset, overrides.model, overrides.budget):
            if part is not None:
                parts.append(re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-."))
        if overrides.weights is not None:
            parts.append(re.sub(r"[^A-Za-z0-9._-]+", "-", Path(overrides.weights).stem).strip("-."))
        if overrides.image_size is not None:
            parts.append(str(overrides.image_size))
        if overrides.seed is not None:
            parts.append(f"seed{overrides.seed}")
        return "-".join(parts)[:100]
