"""All that a report says, computed once for its page and for its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.audit.audit import Audited, audited
from results.audit.audited_front import AuditedFront, audited_front
from results.audit.comparisons import Pair, pairs
from results.audit.optimism import Optimism, optimism
from results.choosing.recommendation import Recommendation, recommendation
from results.records.record import Record
from results.records.run import Run
from results.sections.attacked_images import ImagesInfo, attacked_images
from results.sections.certificates import CertificatesInfo, certificates_info, certifying
from results.sections.costs import Cost, costs
from results.sections.findings import Best, best_points, findings, standard_radius, warning
from results.sections.inversion import ReconstructionsInfo, reconstructions
from results.sections.matrix import Matrix, matrix
from results.sections.poisoning import ScoresInfo, poisoned, scores_info
from results.sections.privacy import MembershipInfo, membership_info, telling
from results.sections.reproduction import PublishedTable, compare_published
from results.sections.robustness import (
    BrokenBy,
    RobustnessInfo,
    broken_by,
    rejecting,
    robustness_info,
)
from results.sections.status import Counts, counts
from results.statistics.effects import Effect, defense_effects
from results.statistics.fronts import Front, fronts, membership

PROBABLE = 0.5
"""Share of draws from which a trial is shown as on a front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the page and the JSON of a report say."""

    run: Run
    counts: Counts
    findings: list[str]
    warning: str
    fronts: tuple[Front, ...]
    shares: dict[str, dict[str, float]]
    """Front's key -> trial -> share of draws in which it is on that front."""
    best: tuple[Best, ...]
    audited: tuple[Audited, ...]
    """The candidates after their audit; none where there was no audit."""
    audited_front: AuditedFront | None
    """None where there was no audit."""
    optimism: tuple[Optimism, ...]
    """Per objective, how the search flattered the audited; none where there was no audit."""
    pairs: tuple[Pair, ...]
    """Every two verified candidates."""
    recommendation: Recommendation
    matrix: Matrix | None
    """None where no difference to an undefended model is known."""
    costs: tuple[Cost, ...]
    effects: tuple[Effect, ...]
    images: ImagesInfo | None
    """None where no record holds images."""
    robustness: RobustnessInfo | None
    """None where robust accuracy was measured at no radius besides the standard one."""
    broken: BrokenBy | None
    """None where no trial recorded which attack broke its points."""
    rejecting: tuple[Record, ...]
    """The trials that may reject an image."""
    certificates: CertificatesInfo | None
    """None where no trial certifies anything."""
    certifying: tuple[Record, ...]
    """The trials whose model certifies."""
    membership: MembershipInfo | None
    """None where no record holds the scores of a membership attack."""
    telling: tuple[Record, ...]
    """The trials whose privacy was measured."""
    reconstructions: ReconstructionsInfo | None
    """None where no trial was inverted."""
    poisoned: tuple[Record, ...]
    """The trials whose training set was poisoned for a twin."""
    row_scores: ScoresInfo | None
    """None where no filter scored poisoned rows."""
    published: PublishedTable | None

    def probable(self, front: Front) -> tuple[Record, ...]:
        """Return the trials that are on a front in at least half of the draws, the surest first.

        Of an objective whose intervals overlap, the values alone put most trials on the front.
        """
        shares = self.shares[front.key]
        sure = [record for record in front.records if shares[record.trial] >= PROBABLE]
        return tuple(sorted(sure, key=lambda record: -shares[record.trial]))


def gather(run: Run) -> Content:
    """Compute all that a report says."""
    found = fronts(run)
    candidates = audited(run)
    effects = matrix(run, candidates)
    shares = {front.key: membership(front) for front in found}
    return Content(
        run=run,
        counts=counts(run),
        findings=_all_findings(run, found, shares),
        warning=warning(run),
        fronts=found,
        shares=shares,
        best=best_points(run),
        audited=candidates,
        audited_front=audited_front(run) if candidates else None,
        optimism=optimism(run),
        pairs=pairs(run, candidates),
        recommendation=recommendation(run, effects),
        matrix=effects,
        costs=costs(run, found[0], candidates),
        effects=defense_effects(run),
        robustness=robustness_info(found[0], standard_radius(run)),
        images=_shown_images(run, found[0]),
        broken=broken_by(found[0]),
        rejecting=rejecting(run),
        certificates=certificates_info(found[0]),
        certifying=certifying(run),
        membership=membership_info(run),
        telling=telling(run),
        reconstructions=reconstructions(run),
        poisoned=poisoned(run),
        row_scores=scores_info(poisoned(run)),
        published=compare_published(run) if run.manifest.get("published") else None,
    )


def _shown_images(run: Run, front: Front) -> ImagesInfo | None:
    """Show the undefended trial and the most robust one of the front."""
    info = robustness_info(front, standard_radius(run))
    if info is None:
        return None
    shown = [curve.record for curve in info.curves]
    return attacked_images(run, [shown[0], shown[-1]] if len(shown) > 1 else shown)


def _all_findings(
    run: Run, found: Sequence[Front], shares: Mapping[str, Mapping[str, float]]
) -> list[str]:
    words = findings(run, found, shares)
    if run.manifest.get("published"):
        table = compare_published(run)
        verdicts = [claim.verdict for claim in table.claims]
        tally = ", ".join(f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts))
        answer = f" Claims: {tally}." if tally else ""
        words.insert(0, f"Table {table.table}, ours on {table.data}: {table.agreement}{answer}")
    return words
