"""A made-up study that was tuned: LoRA gains, full fine-tuning keeps what it had on one task."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import builders
from peft_study.findings.chance import Values
from peft_study.findings.results import Results
from peft_study.findings.rows import CellValues
from peft_study.findings.statistics import summarise
from peft_study.findings.tuning import tuning
from peft_study.records.scores import Cell, Cells, Rows
from peft_study.records.study import InitInfo, StudyInfo, TuneInfo
from peft_study.records.tuning import Trial, TrialRuns

RATES = (0.001, 0.002, 0.004)
METRICS = {"film": "accuracy", "rating": "pearson"}
TRIALS: dict[tuple[str, str], list[Sequence[float]]] = {  # by rate, the score of each seed
    ("lora", "film"): [(0.70, 0.72), (0.74, 0.76), (0.79, 0.81)],  # best at the edge
    ("lora", "rating"): [(0.80, 0.80), (0.84, 0.86), ()],  # the last rate fails
    ("full_ft", "film"): [(0.78, 0.80), (0.81, 0.81), (0.76, 0.78)],
    ("full_ft", "rating"): [(0.83, 0.85), (0.86, 0.86), (0.70, 0.72)],
}
TUNED = {
    ("lora", "film"): (0.80, 0.81, 0.805),
    ("lora", "rating"): (0.85, 0.86, 0.855),
    ("full_ft", "film"): (0.806, 0.812, 0.807),
    ("full_ft", "rating"): (0.86, 0.865, 0.87),
}
UNTUNED = {  # the winner of full fine-tuning on film is what the study had
    ("lora", "film"): (0.72, 0.73, 0.725),
    ("lora", "rating"): (0.851, 0.859, 0.856),
    ("full_ft", "rating"): (0.84, 0.845, 0.85),
}
HELD_OUT, CHOOSING = Rows(400, "a" * 64), Rows(100, "b" * 64)
NO_SCORE = "the loss is nan after step 12"


def study(**changes: Any) -> StudyInfo:
    """Return a study of LoRA and full fine-tuning, both tuned over three rates and two seeds."""
    init = InitInfo("per_method", "product", ("rating",))
    tune = TuneInfo({"learning_rate": RATES}, False, (101, 102), 0.2)
    found = builders.study(("lora", "full_ft"), METRICS, mnli_init=init, tune=tune)
    return replace(found, **changes)


def cell(of: tuple[str, str], scores: Sequence[float], steps: int, **changes: Any) -> Cell:
    """Return a cell whose runs took `steps` steps; without scores both of its seeds failed."""
    method, task = of
    metric, held_out = METRICS[task], {"validation": HELD_OUT}
    about: dict[str, Any] = {"metric": metric, "baseline": {metric: 0.5}, "data": held_out}
    found = builders.cell(method, task, *scores, first=scores, last=scores, **(about | changes))
    seeds = {
        seed: replace(run, last=replace(run.last, step=steps)) for seed, run in found.seeds.items()
    }
    return replace(found, seeds=seeds, failed={} if scores else {"101": NO_SCORE, "102": NO_SCORE})


def runs() -> TrialRuns:
    """Return the trials: 80 steps each, on rows of their own."""
    trials, cells = [], {}
    for of, scored in TRIALS.items():
        for rate, scores in zip(RATES, scored, strict=True):
            place = f"{'/'.join(of)}/{rate:g}"
            trials.append(Trial(*of, {"learning_rate": rate}, place))
            data = {"validation": CHOOSING}
            cells[place] = cell(of, scores, 80, data=data, variant=place)
    return TrialRuns(tuple(trials), cells)


def tuned() -> Cells:
    return {of: cell(of, scores, 100) for of, scores in TUNED.items()}


def untuned() -> Cells:
    """Return the cells at the methods' own rates, where others were chosen."""
    return {
        of: cell(of, scores, 100, variant=f"untuned/{'/'.join(of)}")
        for of, scores in UNTUNED.items()
    }


def values(found: Cell) -> CellValues:
    """Return values whose means are the cell's scores; rows vary, and so do cells a little."""
    rows = found.data["validation"].rows
    own = np.random.default_rng(sum(map(ord, f"{found.method}{found.task}{found.variant}")))
    shared = 0.3 * np.sin(np.arange(float(rows)))
    of_rows: Values = shared + 0.05 * own.standard_normal((len(found.seeds), rows))
    of_rows -= of_rows.mean(axis=1, keepdims=True)
    return {
        metric: np.array(list(found.scores(metric, found.judged).values()))[:, None] + of_rows
        for metric in found.metrics
    }


def results(**changes: Any) -> Results:
    """Return the results of that study, `changes` of it too."""
    about, cells = study(**changes), tuned()
    found = tuning(about, runs(), cells, untuned(), values, values)
    statistics = summarise(about, cells, [], [], values)
    return builders.results(about, statistics=statistics, cells=cells, tuning=found)
