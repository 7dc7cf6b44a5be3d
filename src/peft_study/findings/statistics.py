"""What few seeds can say: spread, intervals, and differences paired by seed."""

import math
import statistics
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from typing import get_args

import numpy as np
from scipy import stats

from peft_study.records import scores
from peft_study.records.study import MethodInfo, Report, StudyInfo

Summary = dict[str, dict[str, dict[str, float | None]]]  # by task, method, and median or std

LEVEL = 0.95
OURS = "lora"
REPORTS: tuple[Report, ...] = ("best", "last")  # what a run's result may be


def summarise(study: StudyInfo, cells: scores.Cells, gaps: list[scores.Gap]) -> scores.Statistics:
    """Draw all statistics from the scores of the cells that have any, by method and task."""
    return scores.Statistics(
        gaps=tuple(gaps),
        cells=tuple(describe_cells(cells)),
        differences=tuple(compare_cells(cells, study)),
        averages=tuple(averages(cells, study)),
        baselines={task: cell.baseline for (_, task), cell in cells.items()},
    )


def summary(study: StudyInfo, found: scores.Statistics) -> Summary:
    """Return median and std of each task's main metric, all that `dvc metrics show` prints."""
    table: Summary = {task.name: {} for task in study.tasks}
    for cell in found.cells:
        if cell.evaluation == study.report and cell.metric == study.main_metrics[cell.task]:
            table[cell.task][cell.method] = {"median": cell.median, "std": cell.std}
    return table


def describe_cells(cells: scores.Cells) -> Iterator[scores.CellStatistics]:
    """Describe every metric of every cell, at the first, best and last evaluation of its runs."""
    for (method, task), cell in cells.items():
        for metric, evaluation in product(cell.metrics, get_args(Report)):
            values = list(cell.scores(metric, evaluation).values())
            mean, std, cv = spread(values)
            yield scores.CellStatistics(
                *(task, method, metric, evaluation, len(values)),
                *(statistics.median(values), std, mean, cv),
                *(min(values), max(values), *bootstrap_interval(values)),
            )


def spread(values: Collection[float]) -> tuple[float, float | None, float | None]:
    """Return mean, std and cv of values, as records define them."""
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    return mean, std, std / mean if std is not None and mean > 0 else None


def bootstrap_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95% BCa bootstrap interval of the mean, always the same for the same values.

    Source: Efron 1987, Better Bootstrap Confidence Intervals.
    """
    if len(values) < 2:
        return None, None
    if min(values) == max(values):
        return values[0], values[0]
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, confidence_level=LEVEL, method="BCa", rng=rng
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def compare_cells(cells: scores.Cells, study: StudyInfo) -> Iterator[scores.Difference]:
    """Compare methods on every task: each with full fine-tuning, ours with others of its family."""
    for method, task, reference in product(study.methods, study.main_metrics, study.methods):
        ours, theirs = (cells.get((of.name, task)) for of in (method, reference))
        if not ours or not theirs or not _compared(method, reference):
            continue
        for metric, at in product(ours.metrics, REPORTS):
            pair = ours.scores(metric, at), theirs.scores(metric, at)
            yield scores.Difference(
                **vars(paired(*pair, study.equivalence_margin)),
                task=task,
                metric=metric,
                evaluation=at,
                method=method.name,
                reference=reference.name,
            )


def _compared(method: MethodInfo, reference: MethodInfo) -> bool:
    if reference.family == "full":
        return method.family != "full"
    return method.name == OURS != reference.name and method.family == reference.family


def paired(values: dict[str, float], reference: dict[str, float], margin: float) -> scores.Paired:
    """Compare scores by seed with those of a reference, over the seeds that both have.

    `margin` is a difference that would not matter.
    """
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    n = len(differences)
    if n < 2:
        return scores.Paired(n, differences[0] if differences else None, margin)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    if reach == 0:
        p, p_equivalence = None, 0.0 if abs(mean) < margin else 1.0
    else:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
        above = stats.ttest_1samp(differences, -margin, alternative="greater")
        below = stats.ttest_1samp(differences, margin, alternative="less")
        p_equivalence = float(max(above.pvalue, below.pvalue))
    equivalent, ends = p_equivalence < 1 - LEVEL, (mean - reach, mean + reach)
    return scores.Paired(n, mean, margin, *ends, p, p_equivalence, equivalent, detectable=reach)


def averages(cells: scores.Cells, study: StudyInfo) -> Iterator[scores.Average]:
    """Average each method's medians of the main metrics over the tasks, as the papers do."""
    main = study.main_metrics
    for method, evaluation in product(study.labels, REPORTS):
        gaps = tuple(task for task in main if (method, task) not in cells)
        medians = [
            statistics.median(cells[method, task].scores(metric, evaluation).values())
            for task, metric in main.items()
            if task not in gaps
        ]
        mean = None if gaps else statistics.fmean(medians)
        yield scores.Average(method, evaluation, len(main), gaps, mean)


def sweep_rows(cells: Sequence[scores.Cell]) -> Iterator[scores.SweepRow]:
    """Return a row per metric and cell of a grid of ranks and weights (Hu et al. 2021, table 6)."""
    for cell in cells:
        assert cell.rank is not None
        for metric in cell.metrics:
            values = cell.scores(metric).values()
            _, std, _ = spread(values)
            first, last = (spread(cell.scores(metric, e).values())[2] for e in ("first", "last"))
            about = cell.task, cell.weights, cell.rank, metric, len(values)
            counts = cell.trainable.adapter, cell.trainable.head, cell.trainable.total
            yield scores.SweepRow(*about, statistics.median(values), std, first, last, *counts)
