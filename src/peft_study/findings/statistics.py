"""What a study's cells score, with what chance leaves of it: seeds and held-out rows."""

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations, permutations, product
from typing import get_args

import numpy as np

from peft_study.findings import chance
from peft_study.findings.comparisons import compare, corrected, over_tasks, paired
from peft_study.findings.overall import overall, redrawn
from peft_study.findings.rows import CellValues
from peft_study.records import scores
from peft_study.records.study import Evaluated, StudyInfo

Summary = dict[str, dict[str, dict[str, float | None]]]  # by task, method, and median or std
ValuesOf = Callable[[scores.Cell], CellValues]


def summarise(
    study: StudyInfo,
    cells: scores.Cells,
    gaps: Sequence[scores.Gap],
    sweep: Sequence[scores.Cell],
    values_of: ValuesOf,
) -> scores.Statistics:
    """Draw all statistics from the scores of the cells that have any, by method and task.

    `values_of` reads what held-out rows add to a cell's scores; those of one task are held at once.
    """
    described: list[scores.CellStatistics] = []
    unlearned: list[scores.Unlearned] = []
    compared: list[scores.Difference] = []
    # Methods over all tasks: those that have all, with the same seeds.
    alike = [method.name for method in study.methods if method.seeds is None]
    whole = [name for name in alike if all((name, task) in cells for task in study.main_metrics)]
    drawn, apart = [], {pair: list[scores.Chance]() for pair in combinations(whole, 2)}
    for number, (task, metric) in enumerate(study.main_metrics.items()):
        mine = {name: cells[name, task] for name in study.labels if (name, task) in cells}
        values = {name: values_of(cell) for name, cell in mine.items()}
        for name, cell in mine.items():
            described += describe(cell, values[name])
            unlearned += not_learned(cell, metric, values[name][metric])
        failed = [row.method for row in unlearned if row.task == task and row.whole]
        compared += compare(study, task, mine, values, failed)
        if len(study.seeds) > 1:
            if whole:
                drawn.append(redrawn([values[name][metric] for name in whole], number))
            for (one, other), of in apart.items():
                of.append(chance.two_way(values[one][metric] - values[other][metric]))
    swept, slow = _swept(study, sweep, values_of)
    full = next((m.name for m in study.methods if m.family == "full" and m.name in whole), None)
    slowest = {row.method for row in unlearned if row.whole}
    pairs = over_tasks(study.equivalence_margin, apart if drawn else {}, slowest)
    return scores.Statistics(
        gaps=tuple(gaps),
        cells=tuple(described),
        differences=tuple(corrected(study, compared)),
        swept=tuple(swept),
        unlearned=(*unlearned, *slow),
        overall=tuple(overall(whole, full, drawn, pairs)),
        over_tasks=tuple(pairs),
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


def evaluations(cell: scores.Cell) -> list[Evaluated]:
    """Return how a cell's runs are scored: cross-fitted only where they report the best."""
    return [at for at in get_args(Evaluated) if at in ("first", "best", "last", cell.judged)]


def describe(cell: scores.Cell, of_rows: CellValues) -> Iterator[scores.CellStatistics]:
    """Describe every metric of a cell, at every evaluation that is scored."""
    for metric, evaluation in product(cell.metrics, evaluations(cell)):
        values = list(cell.scores(metric, evaluation).values())
        mean, std, cv = spread(values)
        found, low, high = None, None, None
        if evaluation == cell.judged and len(values) > 1:
            found = chance.two_way(of_rows[metric])
            reach = chance.reach(found)
            low, high = mean - reach, mean + reach
        yield scores.CellStatistics(
            *(cell.task, cell.method, metric, evaluation, len(values)),
            *(statistics.median(values), std, mean, cv),
            min=min(values),
            max=max(values),
            low=low,
            high=high,
            chance=found,
        )


def not_learned(cell: scores.Cell, metric: str, values: chance.Values) -> list[scores.Unlearned]:
    """Name a cell, or runs of it, whose main metric does not lie above the baseline."""
    seeds = tuple(seed for seed, run in cell.seeds.items() if not run.learned)
    whole = len(seeds) == len(cell.seeds)
    if len(cell.seeds) > 1:
        found = chance.two_way(values)
        whole = not found.mean - chance.reach(found) > cell.baseline[metric]
    if not seeds and not whole:
        return []
    return [scores.Unlearned(cell.method, cell.task, seeds, whole, cell.weights, cell.rank)]


def spread(values: Collection[float]) -> tuple[float, float | None, float | None]:
    """Return mean, std and cv of values, as records define them.

    A cv needs a mean that is clearly above zero: its 95% t interval lies above it.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None
    std = statistics.stdev(values)
    found = chance.two_way(np.array(list(values))[:, None])
    return mean, std, std / mean if mean - chance.reach(found) > 0 else None


def averages(cells: scores.Cells, study: StudyInfo) -> Iterator[scores.Average]:
    """Average each method's medians of the main metrics over the tasks, as the papers do."""
    main = study.main_metrics
    for method, evaluation in product(study.labels, dict.fromkeys((study.report, study.judged))):
        medians = {
            task: statistics.median(cells[method, task].scores(metric, evaluation).values())
            for task, metric in main.items()
            if (method, task) in cells
        }
        gaps = tuple(t for t in main if study.trains(method, t) and t not in medians)
        mean = statistics.fmean(medians.values()) if len(medians) == len(main) else None
        yield scores.Average(method, evaluation, len(main), gaps, mean)


def sweep_rows(cells: Sequence[scores.Cell]) -> Iterator[scores.SweepRow]:
    """Return a row per metric and cell of a grid of ranks and weights (Hu et al. 2021, table 6)."""
    for cell in cells:
        assert cell.rank is not None
        for metric in cell.metrics:
            values = cell.scores(metric).values()
            _, std, _ = spread(values)
            judged = statistics.median(cell.scores(metric, cell.judged).values())
            first, last = (spread(cell.scores(metric, e).values())[2] for e in ("first", "last"))
            about = cell.task, cell.weights, cell.rank, metric, len(values)
            assert cell.trainable is not None
            counts = cell.trainable.adapter, cell.trainable.head, cell.trainable.total
            middle = statistics.median(values), std, judged
            yield scores.SweepRow(*about, *middle, first, last, *counts)


def _swept(
    study: StudyInfo, sweep: Sequence[scores.Cell], values_of: ValuesOf
) -> tuple[list[scores.SweepDifference], list[scores.Unlearned]]:
    """Compare the cells of the sweep that differ in rank or in weights, both ways round.

    Also return which of them have not learned.
    """
    found: list[scores.SweepDifference] = []
    main = [study.main_metrics[cell.task] for cell in sweep]
    values = [values_of(cell)[metric] for cell, metric in zip(sweep, main, strict=True)]
    slow = [not_learned(*of) for of in zip(sweep, main, values, strict=True)]
    failed = [any(row.whole for row in rows) for rows in slow]
    for i, j in permutations(range(len(sweep)), 2):
        ours, theirs = sweep[i], sweep[j]
        if (ours.rank != theirs.rank) == (set(ours.weights) != set(theirs.weights)):
            continue
        assert ours.rank is not None
        assert theirs.rank is not None
        both = paired((ours, values[i]), (theirs, values[j]), study.equivalence_margin)
        found.append(
            scores.SweepDifference(
                **vars(both),
                weights=ours.weights,
                rank=ours.rank,
                reference_weights=theirs.weights,
                reference_rank=theirs.rank,
                unlearned=failed[i] or failed[j],
            )
        )
    return found, [row for rows in slow for row in rows]
