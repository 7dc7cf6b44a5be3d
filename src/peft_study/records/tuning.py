"""What trials gave: every method with the same values of hyperparameters, before the study."""

from dataclasses import field

from peft_study.records import Record
from peft_study.records.scores import Cell


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
