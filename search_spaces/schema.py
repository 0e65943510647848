"""The strict shape of a space file; what its values mean is checked when the Space is built."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trainables.trial.limits import parse_duration

Count = Annotated[int, Field(ge=1, strict=True)]
NONE = "none"
"""Stands for no defense in a slot."""
Named = dict[str, dict[str, Any] | None]
"""Name -> its parameters."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Strict):
    """A network by name, its normalisation layers, and weights that are kept as they are."""

    name: str
    norm: str = "default"
    weights: str | None = None
    """A checkpoint's file or URI; None: the network is trained."""


class ScenarioSection(_Strict):
    """A data set, a network and a training; any part of the training may be a domain."""

    dataset: str = "digits"
    image_size: Count | None = None
    resize: Literal["crop", "squash"] = "crop"
    skip_bad_images: bool = False
    model: str | ModelSection | None = None
    trained_on: str | None = None
    """What given weights were trained on: nothing of it, or a folder or a list of files; None: the
    data set's own training images."""
    training: dict[str, Any] = {}


class ObjectiveSection(_Strict):
    """A metric to optimise; its direction is the metric's own."""

    metric: str
    worst: float | None = None
    """Reference of the hypervolume, for a metric that has no worst value of its own."""


class SearchSection(_Strict):
    """How the study proposes trials."""

    algorithm: Literal["grid", "random", "tpe", "effects", "nsga2", "nsga3"] = "effects"
    trials: Count | None = None
    """None, in a grid search alone: all of them."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


class ResourcesSection(_Strict):
    """What a trial may use, and how large the run's artefacts may grow."""

    cpus_per_trial: float = Field(default=1, gt=0)
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] | None = None
    """auto: the share that a first trial is measured to need; None: one GPU where there are any."""
    artefacts_gib: float = Field(default=10, gt=0)
    trial_time_limit: Annotated[float, BeforeValidator(parse_duration)] | None = None
    """Seconds, or 90s, 30m, 2h, 1d: a trial that works longer is ended. None: none is."""
    trial_memory_gib: float | None = Field(default=None, gt=0)
    """A trial whose process takes more memory than that, above what it had before, is ended."""


class AuditSection(_Strict):
    """What is audited after the search, and how."""

    candidates: Count = 4
    """Maximum trials to audit, besides the undefended model."""
    seeds: Count = 3
    """Fresh seeds that each is trained with."""
    points: Count | None = None
    """Most test points that are attacked and certified on a CPU; None: the effort's own."""


class BudgetSection(_Strict):
    """A declared share of a reproduction's epochs and images."""

    model: str | None = None
    training: dict[str, Any] = {}
    train_images: Count | None = None
    measured_images: Count | None = None
    threats: Named = {}
    """Further parameters of the space's threats."""


class RowSection(_Strict):
    """A row of a published table: which trial it is, and the published figures."""

    name: str
    label: str
    stack: Named = {}
    model: str | None = None
    """Where the space has several networks: the row's."""
    training: dict[str, Any] = {}
    cells: dict[str, float | None]


class ClaimSection(_Strict):
    """A published claim and what would make it hold."""

    text: str
    expect: Literal["rises", "falls", "above", "below", "unanswered"]
    cells: list[tuple[str, str]] = []
    value: float | None = None
    why: str = ""


class SeriesSection(_Strict):
    """One line of a figure: (x, row, metric) points."""

    label: str
    points: list[tuple[float, str, str]]


class FigureSection(_Strict):
    """A published figure, drawn from our cells."""

    title: str
    x_label: str
    y_label: str
    series: list[SeriesSection]


class PublishedSection(_Strict):
    """What a document printed."""

    table: str
    source: str
    not_disclosed: list[str] = []
    rows: list[RowSection]
    claims: list[ClaimSection] = []
    figures: list[FigureSection] = []


class SpaceFile(_Strict):
    """A whole space file."""

    name: str
    description: str
    scenarios: list[ScenarioSection] = Field(min_length=1)
    defenses: Named = {}
    max_stack: Annotated[int, Field(ge=0, strict=True)] = 1
    first: list[Named] = []
    """Stacks that are tried before the search begins."""
    threats: Named = {}
    objectives: list[str | ObjectiveSection] = Field(
        default=["clean_accuracy"], min_length=1, max_length=4
    )
    constraints: list[str] = []
    search: SearchSection = SearchSection()
    resources: ResourcesSection = ResourcesSection()
    audit: AuditSection = AuditSection()
    pools: Literal["search", "published"] = "search"
    effort: Literal["screen", "audit"] = "screen"
    seeds: list[Annotated[int, Field(ge=0, strict=True)]] = Field(default=[0], min_length=1)
    train_images: Count | None = None
    measured_images: Count | None = None
    budgets: dict[str, BudgetSection] = {}
    published: PublishedSection | None = None
