"""What trials gave: every method with the same values of hyperparameters, before the study."""

from dataclasses import field

from peft_study.records import Record
from peft_study.records.scores import Cell, Difference


class Trial(Record):
    """A method on a task with `values` of what is tuned, by hyperparameter.

    `place` is that of its cell, whose scores are of rows held out of the training rows.
    """

    method: str
    task: str
    values: dict[str, float]
    place: str


class TrialRuns(Record):
    """`metrics/runs/trials.json`: all trials in the order of their grid, and their cells by place.

    What held-out rows add to a cell is in `metrics/rows/trials/<place>.parquet`.
    """

    trials: tuple[Trial, ...] = ()
    cells: dict[str, Cell] = field(default_factory=dict)


class Scored(Record):
    """The main metric of a cell over n seeds, and whether the cell has learned.

    `reported` is the mean of what runs report, which chooses among trials. `mean` has the 95%
    interval and is of rows that chose no evaluation; the two differ where runs report their best.
    `failed` names the seeds without a score.
    """

    n: int
    reported: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    learned: bool = False
    failed: tuple[str, ...] = ()


class ScoredTrial(Record):
    """A trial's values by hyperparameter, and its scores on the rows held out for choosing."""

    values: dict[str, float]
    scored: Scored


class TunedCell(Record):
    """A method on a task: its trials in the order of the grid, and what the winner gave.

    `rows` counts those held out for choosing.
    `edges` names the hyperparameters whose chosen value is the lowest or the highest of those
    listed. `expected` is the best score that 1, 2, ... trials are expected to find. `tuned` and
    `untuned` are of the study's seeds and held-out rows. `difference` is of the two; where there is
    none, `without` says why.
    """

    method: str
    task: str
    metric: str
    rows: int
    trials: tuple[ScoredTrial, ...]
    chosen: dict[str, float]
    edges: dict[str, str]
    expected: tuple[float, ...]
    tuned: Scored | None
    untuned: Scored | None
    difference: Difference | None
    without: str = ""


class WhoWasTuned(Record):
    """LoRA minus full fine-tuning on a task, where the methods of `tuned` alone are tuned."""

    tuned: tuple[str, ...]
    difference: Difference


class TuningCost(Record):
    """Runs and optimiser steps of a method's trials, beside those of its final runs.

    Of `failed` runs no steps are known. `ratio` is of the steps, None without final ones.
    """

    method: str
    runs: int
    failed: int
    steps: int
    final_runs: int
    final_steps: int
    ratio: float | None


class ForAllTasks(Record):
    """Values of one method for all tasks, by the one-standard-error rule.

    `best` have the highest mean over tasks of the trials' scores, `best_mean`, whose standard error
    is `error`; `values` are the lowest of those whose own `mean` is not more than that below it.
    Source: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3.
    """

    method: str
    values: dict[str, float]
    mean: float
    best: dict[str, float]
    best_mean: float
    error: float


class Tuning(Record):
    """`metrics/tuning.json`: what was chosen, what that changed, for whom, and at what cost.

    Of `who` so many `questions` differ, and are corrected together.
    """

    cells: tuple[TunedCell, ...]
    who: tuple[WhoWasTuned, ...]
    questions: int
    costs: tuple[TuningCost, ...]
    for_all_tasks: tuple[ForAllTasks, ...] = ()
