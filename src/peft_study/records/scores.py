"""What runs scored, and what follows from it."""

from dataclasses import field
from typing import Annotated

from pydantic import BeforeValidator

from peft_study.records import Record
from peft_study.records.study import Report


class Counts(Record):
    """Trainable parameters: of the adapter (or encoder), of the task head, and of both."""

    adapter: int
    head: int
    total: int


class Rows(Record):
    rows: int
    sha256_of_ids: str


class Evaluation(Record):
    """One evaluation of a run: when, and its score by metric."""

    step: int
    epoch: float
    scores: dict[str, float]

    def plain(self) -> dict[str, float]:
        """Return it as files hold it: flat, scores beside step and epoch."""
        return {"step": self.step, "epoch": self.epoch, **self.scores}


def _nested(found: dict[str, float]) -> dict[str, object]:
    scores = {key: value for key, value in found.items() if key not in ("step", "epoch")}
    return {"step": found["step"], "epoch": found["epoch"], "scores": scores}


Flat = Annotated[Evaluation, BeforeValidator(_nested)]


class RunScores(Record):
    first: Flat
    best: Flat
    last: Flat


class Cell(Record):
    """The runs of one method on one task: an item of `metrics/runs/`."""

    task: str
    method: str
    report: Report
    baseline: dict[str, float]  # by metric, of the majority class or the mean
    data: dict[str, Rows]  # by split; `train seed 1` is seed 1's own draw
    trainable: Counts
    seeds: dict[str, RunScores]
    # Why a seed has no scores: such a cell decides nothing, and is a gap.
    failed: dict[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()  # this and the next are of a cell of the sweep
    rank: int | None = None

    def plain(self) -> dict[str, object]:
        """Return what its file holds: fields that say nothing are left out."""
        optional = {"failed", "weights", "rank"}
        return {key: value for key, value in vars(self).items() if value or key not in optional}

    @property
    def metrics(self) -> list[str]:
        return list(next(iter(self.seeds.values())).best.scores)

    def trained_on(self, seed: str) -> Rows:
        """Return the training rows of a seed: its own, or those that all seeds share."""
        return self.data.get(f"train seed {seed}") or self.data["train"]

    def scores(self, metric: str, evaluation: Report | None = None) -> dict[str, float]:
        """Return the score of each seed at an evaluation, by default the one that is reported."""
        which = evaluation or self.report
        return {seed: getattr(run, which).scores[metric] for seed, run in self.seeds.items()}


Cells = dict[tuple[str, str], Cell]  # by method and task


class Gap(Record):
    """A method on a task without results, and why."""

    method: str
    task: str
    reason: str


class CellStatistics(Record):
    """A metric of a cell at an evaluation, over n seeds; the interval is of the mean."""

    task: str
    method: str
    metric: str
    evaluation: Report
    n: int
    median: float
    std: float | None
    mean: float
    cv: float | None
    min: float
    max: float
    low: float | None
    high: float | None


class Paired(Record):
    """The mean of n differences paired by seed, `low` to `high` its 95% t interval.

    `p` is the paired t-test's, `p_equivalence` that of two one-sided t-tests against ±`margin`
    (Schuirmann 1987), `equivalent` whether that is below 5%, and `detectable` the smallest mean
    difference that this spread and n would have shown at 5%. All of them and the interval are None
    below two seeds, and `mean` without any; `p` also where no seed differs from another.
    """

    n: int
    mean: float | None
    margin: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_equivalence: float | None = None
    equivalent: bool | None = None
    detectable: float | None = None


class Difference(Paired, kw_only=True):
    """A method's score minus that of a reference."""

    task: str
    metric: str
    evaluation: Report
    method: str
    reference: str


class Average(Record):
    """A method's medians of the main metrics, averaged over `tasks`; None where there are gaps."""

    method: str
    evaluation: Report
    tasks: int
    gaps: tuple[str, ...]
    mean_of_medians: float | None


class Statistics(Record):
    """`metrics/statistics.json`; `baselines` by task and metric."""

    gaps: tuple[Gap, ...]
    cells: tuple[CellStatistics, ...]
    differences: tuple[Difference, ...]
    averages: tuple[Average, ...]
    baselines: dict[str, dict[str, float]]


class SweepRow(Record):
    """A metric of a cell of the sweep, at the evaluation that is reported, over n seeds."""

    task: str
    weights: tuple[str, ...]
    rank: int
    metric: str
    n: int
    median: float
    std: float | None
    cv_first: float | None
    cv_last: float | None
    trainable_adapter: int
    trainable_head: int
    trainable_total: int


class CurvePoint(Record):
    """The main metric of a cell at one evaluation: mean and range over n seeds, mean losses."""

    task: str
    method: str
    metric: str
    step: int
    epoch: float
    n: int
    mean: float
    low: float
    high: float
    train_loss: float
    validation_loss: float
    weights: tuple[str, ...] = ()
    rank: int | None = None


class StabilityPoint(Record):
    """How much n seeds differ at one evaluation."""

    task: str
    method: str
    step: int
    epoch: float
    n: int
    mean: float
    std: float | None
    cv: float | None


class EqualScoreRun(Record):
    """When a run first reached `target`, its task's equal score: None where it never did.

    The seconds are of training, of the processor on CPUs; joules are None if not measured.
    """

    task: str
    method: str
    seed: int
    target: float
    reached: bool
    step: int | None
    epoch: float | None
    seconds: float | None
    joules: float | None


class EpochSeconds(Record):
    """Seconds of training (see `EqualScoreRun`) that an epoch took, over n epochs of all seeds."""

    task: str
    method: str
    n: int
    mean: float
    std: float | None
