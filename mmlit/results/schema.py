"""The schema of `result.json`: what a record of one run says."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Percent = Annotated[float, Field(ge=0, le=100)]
MedianRank = Annotated[float, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class _Closed(BaseModel):
    """Every key is known: a misspelt one is an error, not a silent extra."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="forbid")


class _Open(BaseModel):
    """The named keys are required, others are welcome."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="allow")


class Protocol(_Open):
    """How ranks became numbers; two protocols are the same if all their keys are."""

    name: str
    ks: list[int]


class Gallery(_Closed):
    """What was ranked; `hash` covers the ids and their order-free correspondence."""

    images: Annotated[int, Field(ge=1)]
    texts: Annotated[int, Field(ge=1)]
    hash: str


class Data(_Closed):
    """What was trained on; `hash` covers the annotations of every split."""

    hash: str
    train_pairs: Count
    train_images: Count


class Budget(_Closed):
    """What training was given; `pairs_seen` is what a fair comparison holds equal."""

    epochs: Count
    steps: Count
    pairs_seen: Count


class Metrics(_Open):
    """Percent, ranks from 1, and `rsum` in 0…600; further metrics may follow, all finite."""

    __pydantic_extra__: dict[str, float] = Field(init=False)
    i2t_r1: Percent
    i2t_r5: Percent
    i2t_r10: Percent
    i2t_median_rank: MedianRank
    t2i_r1: Percent
    t2i_r5: Percent
    t2i_r10: Percent
    t2i_median_rank: MedianRank
    rsum: Annotated[float, Field(ge=0, le=600)]


class Parameters(_Closed):
    """Numbers of weights."""

    total: Count
    trainable: Count


class Cost(_Open):
    """Wall-clock seconds and MiB of one run."""

    fit_seconds: Amount
    evaluation_seconds: Amount
    peak_memory_mib: Amount


class Environment(_Open):
    """Versions and the machine's kind."""

    python: str
    torch: str
    lightning: str
    mmlit: str
    device: str
    threads: int


class Code(_Closed):
    """Which source made the numbers; `commit` is null outside a repository."""

    commit: str | None
    dirty: bool
    hash: str


class Curve(_Closed):
    """What was measured in training: one value per point, with its optimizer step and its epoch (from 1)."""

    step: list[Count]
    epoch: list[Count]
    value: list[float]

    @model_validator(mode="after")
    def _has_whole_points(self) -> "Curve":
        if not len(self.step) == len(self.epoch) == len(self.value):
            raise ValueError(f"has {len(self.step)} steps, {len(self.epoch)} epochs and {len(self.value)} values")
        return self


class Launch(_Closed):
    """The configuration file that the overrides stand on; `config_dirs` are those of the command line."""

    config_name: str
    config_dirs: list[str]


class Evaluation(_Closed):
    """What a run's checkpoint was evaluated on later, by `mmlit evaluate`.

    `fingerprint` is equal for two evaluations whose numbers may be compared: evaluator, split, protocol (captions
    kept, folds, ties), what was asked. `folder` below the run's holds the numbers query by query.
    """

    evaluator: str
    data: str | None
    split: str | None
    scored: str
    protocol: dict[str, Any]
    counts: dict[str, Count]
    fingerprint: str
    metrics: dict[str, float]
    seconds: Amount
    options: dict[str, Any]
    environment: Environment
    code: Code
    finished: str
    folder: str


class Record(_Closed):
    """All that a comparison needs to know of a run, except its per-query ranks."""

    schema_version: Literal[1] = Field(alias="schema")
    config: dict[str, Any]
    choices: dict[str, str | list[str] | None]
    overrides: list[str]
    config_hash: str
    seed: int
    split: str
    selection: str
    scored: Annotated[str, Field(pattern=r"^(full|rerank@[1-9][0-9]*)$")]
    protocol: Protocol
    gallery: Gallery
    data: Data
    budget: Budget
    metrics: Metrics
    parameters: Parameters
    cost: Cost
    environment: Environment
    code: Code
    finished: str
    validation: dict[str, float] | None = None
    diagnostics: dict[str, float] = {}
    evaluations: list[Evaluation] = []
    launch: Launch | None = None
    curves: dict[str, Curve] = {}

    @field_validator("finished")
    @classmethod
    def _has_a_time_zone(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"needs a time zone, got {value!r}")
        return value

    @property
    def finished_at(self) -> datetime:
        """When the run ended; comparable between time zones."""
        return datetime.fromisoformat(self.finished)
