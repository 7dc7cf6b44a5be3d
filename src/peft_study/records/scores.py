"""What runs scored, and what follows from it."""

from dataclasses import field, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from peft_study.records import Record
from peft_study.records.study import Evaluated, Report, judged


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


class CrossFitted(Record):
    """Scores on rows that did not choose the evaluation: see `findings.cross_fitting`.

    `optimism` is what the best evaluation's scores are above them, both as averages over halves.
    """

    scores: dict[str, float]
    optimism: dict[str, float]


class RunScores(Record):
    """A run's scores; the cross-fitted ones where the study reports the best evaluation.

    `learned` tells whether the 95% interval of the main metric, by rows, lies above the baseline.
    """

    first: Flat
    best: Flat
    last: Flat
    cross_fitted: CrossFitted | None
    learned: bool


class Cell(Record):
    """The runs of one method on one task: an item of `metrics/runs/`."""

    task: str
    method: str
    report: Report
    baseline: dict[str, float]  # by metric, of the majority class or the mean
    data: dict[str, Rows]  # by split, as far as known; `train seed 1` is seed 1's own draw
    trainable: Counts | None  # None of what was trained elsewhere
    seeds: dict[str, RunScores]
    # Why a seed has no scores: such a cell decides nothing, and is a gap.
    failed: dict[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()  # this and the next are of a cell of the sweep
    rank: int | None = None
    variant: str = ""  # where a variant's files are, below those of all variants

    def plain(self) -> dict[str, object]:
        """Return what its file holds: fields that say nothing are left out."""
        optional = {"failed", "weights", "rank", "variant"}
        return {key: value for key, value in vars(self).items() if value or key not in optional}

    @property
    def metrics(self) -> list[str]:
        return list(next(iter(self.seeds.values())).best.scores)

    @property
    def judged(self) -> Evaluated:
        return judged(self.report)

    def trained_on(self, seed: str) -> Rows:
        """Return the training rows of a seed: its own, or those that all seeds share."""
        return self.data.get(f"train seed {seed}") or self.data["train"]

    def scores(self, metric: str, evaluation: Evaluated | None = None) -> dict[str, float]:
        """Return the score of each seed at an evaluation, by default the one that is reported."""
        which = evaluation or self.report
        return {seed: getattr(run, which).scores[metric] for seed, run in self.seeds.items()}


# The questions that are corrected together: LoRA against full fine-tuning over the tasks, all pairs
# of methods over the tasks, other implementations of LoRA, which are the same computation, and of
# `findings.tuning` each method tuned against untuned, and LoRA against full with either tuned.
Family = Literal["lora_full", "pairs", "implementations", "tuned", "who_was_tuned"]
Cells = dict[tuple[str, str], Cell]  # by method and task


class Gap(Record):
    """A method on a task without results, and why."""

    method: str
    task: str
    reason: str


class Chance(Record):
    """A mean over seeds x rows, and its mean squares: see `findings.chance`.

    The mean squares are of seeds, of rows, and of what neither explains.
    """

    mean: float
    seeds: int
    rows: int
    of_seeds: float
    of_rows: float
    of_rest: float


class CellStatistics(Record):
    """A metric of a cell, over n seeds.

    The interval is of the mean, over seeds and held-out rows. It, and `chance`, stand where the
    scores are of rows that did not choose them, and there are two seeds.
    """

    task: str
    method: str
    metric: str
    evaluation: Evaluated
    n: int
    median: float
    std: float | None
    mean: float
    cv: float | None
    min: float
    max: float
    low: float | None
    high: float | None
    chance: Chance | None


class Paired(Record):
    """The mean of n differences paired by seed and row, `low` to `high` its 95% interval.

    `p` is of no difference, `p_equivalence` of two one-sided tests against ±`margin` (Schuirmann
    1987), and `detectable` the difference that this study would show with a power of 80%. They
    and the interval are None below two seeds, `mean` without any, and p where nothing varies.
    """

    n: int
    mean: float | None
    margin: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_equivalence: float | None = None
    detectable: float | None = None
    chance: Chance | None = None


class Difference(Paired, kw_only=True):
    """A method's score minus that of a reference, on a task: a question of a family.

    `p_holm` and `equivalence_holm` are the p corrected for all questions of the family (Holm 1979,
    A Simple Sequentially Rejective Multiple Test Procedure); metrics besides the main one have
    none. `unlearned` names the methods that have not learned the task. `seeds_needed` and
    `rows_needed` tell how many of either would settle what is undecided.
    """

    task: str
    metric: str
    evaluation: Evaluated
    method: str
    reference: str
    family: Family
    unlearned: tuple[str, ...] = ()
    p_holm: float | None = None
    equivalence_holm: float | None = None
    seeds_needed: int | None = None
    rows_needed: int | None = None

    @property
    def equivalent(self) -> bool:
        return self.equivalence_holm is not None and self.equivalence_holm < 0.05

    @property
    def differs(self) -> bool:
        return self.p_holm is not None and self.p_holm < 0.05

    def reversed(self) -> "Difference":
        """Return the reference's score minus the method's."""
        mean, low, high = (None if x is None else -x for x in (self.mean, self.high, self.low))
        names = {"method": self.reference, "reference": self.method}
        found: dict[str, Any] = {"mean": mean, "low": low, "high": high} | names
        chance = self.chance and replace(self.chance, mean=-self.chance.mean)
        return replace(self, **found, chance=chance)


class SweepDifference(Paired, kw_only=True):
    """A cell of the sweep minus another, which differs in rank or in weights."""

    weights: tuple[str, ...]
    rank: int
    reference_weights: tuple[str, ...]
    reference_rank: int
    unlearned: bool  # one of the two has not learned


class Unlearned(Record):
    """A cell, or some of its runs, whose scores do not lie above the task's baseline.

    `whole` says so of the cell's mean, by seeds and rows; `seeds` are those of which it holds by
    rows. What has not learned decides nothing.
    """

    method: str
    task: str
    seeds: tuple[str, ...]
    whole: bool
    weights: tuple[str, ...] = ()  # this and the next are of a cell of the sweep
    rank: int | None = None


class Average(Record):
    """A method's medians of the main metrics, averaged over `tasks`: all of the study's.

    The mean is None where it lacks one, because of gaps or because it has tasks of its own.
    """

    method: str
    evaluation: Evaluated
    tasks: int
    gaps: tuple[str, ...]
    mean_of_medians: float | None


class OverTasks(Record):
    """A method's score minus another's, the mean over all tasks: see `findings.comparisons`.

    `p_holm` and `equivalence_holm` are corrected for all pairs of methods that have all tasks.
    `unlearned` names those of the two that have not learned a task.
    """

    method: str
    reference: str
    mean: float
    low: float
    high: float
    p_holm: float
    equivalence_holm: float
    unlearned: tuple[str, ...] = ()

    @property
    def equivalent(self) -> bool:
        return self.equivalence_holm < 0.05

    @property
    def differs(self) -> bool:
        return self.p_holm < 0.05


class Overall(Record):
    """What a method scores over all tasks: see `findings.overall`.

    `rank` is that of the mean over tasks (1 is best). From six tasks on, `iqm` is the interquartile
    mean of scores and `better` the probability of improvement over full fine-tuning, None of
    itself. Each has its 95% interval; those of the ranks hold for all of them together.
    """

    method: str
    tasks: int
    rank: float
    rank_low: int
    rank_high: int
    iqm: float | None
    iqm_low: float | None
    iqm_high: float | None
    better: float | None
    better_low: float | None
    better_high: float | None


class Statistics(Record):
    """`metrics/statistics.json`; `baselines` by task and metric."""

    gaps: tuple[Gap, ...]
    cells: tuple[CellStatistics, ...]
    differences: tuple[Difference, ...]
    swept: tuple[SweepDifference, ...]
    unlearned: tuple[Unlearned, ...]
    overall: tuple[Overall, ...]
    over_tasks: tuple[OverTasks, ...]
    averages: tuple[Average, ...]
    baselines: dict[str, dict[str, float]]

    def at(self, evaluation: Evaluated) -> dict[tuple[str, str, str], CellStatistics]:
        """Return the cells as they score at an evaluation, by method, task and metric."""
        found = [cell for cell in self.cells if cell.evaluation == evaluation]
        return {(cell.method, cell.task, cell.metric): cell for cell in found}


class SweepRow(Record):
    """A metric of a cell of the sweep, over n seeds: median and std of what is reported.

    `judged` is the median of the scores that differences rest on, as `StudyInfo.judged` says.
    """

    task: str
    weights: tuple[str, ...]
    rank: int
    metric: str
    n: int
    median: float
    std: float | None
    judged: float
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
