"""Tuning: the score against what was tuned, and what so many trials are expected to find."""

from collections.abc import Sequence

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts, words
from peft_study.findings.figures.curves import banded
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.results import Results
from peft_study.records.tuning import ScoredTrial, TunedCell, Tuning

MOST_TICKS = 6  # values, beyond which an axis has ticks at powers of ten
SOURCES = ["metrics/tuning.json"]

CORRELATIONS = ("pearson", "spearman", "matthews")


def tuning(results: Results, found: Tuning) -> Figure:
    """Return the score of the trials against the learning rate, or else what was tuned first."""
    study, tuned = results.study, first_tuned(found)
    key = charts.methods_key((cell.method for cell in found.cells), study)
    rows = [line for cell in found.cells for line in _trial_rows(cell, tuned)]
    name, others = tuned.replace("_", " "), len(found.cells[0].chosen) > 1
    n = _seeds(found)
    failed = sum(bool(of.scored.failed) for cell in found.cells for of in cell.trials)
    chosen = {
        (cell.task, cell.method): of.scored.mean
        for cell in found.cells
        for of in cell.trials
        if of.values == cell.chosen and of.scored.mean is not None
    }
    edges = sum(tuned in cell.edges for cell in found.cells)
    return Figure(
        "tuning",
        f"Score against {name}",
        f"{n}, on the rows held out for choosing. Filled: chosen"
        f"{'; vertical: 95% intervals' if banded(key) else ''}.",
        wording.sentences(
            f"The mean over seeds × 100 ({n}) of each task's main metric against {name}, on "
            "rows held out of the training rows: neither these rows nor these seeds are those of "
            "the results.",
            _intervals(key),
            "Of trials that differ in other hyperparameters the best at each value is shown."
            if others
            else "",
            "Large filled shapes are chosen, by the score that runs report.",
            f"Of {edges} of {len(found.cells)} lines the first or the last value was chosen: a "
            "better one may lie beyond."
            if edges
            else "",
            f"Trials with a failed seed, which cannot be chosen: {failed}." if failed else "",
            words.AXES,
        ),
        f"Mean scores × 100 of the chosen trials by task: "
        f"{words.best_and_worst(chosen, study.labels)}.",
        f"score: {words.SCORE_UNIT}; {name}: as in the parameters",
        SOURCES,
        rows,
        [
            _scores_panel(task, [line for line in rows if line["task"] == task], key, found, name)
            for task in _tasks(found)
        ],
        charts.columns_for(len(_tasks(found)), key),
    )


def trials(results: Results, found: Tuning) -> Figure:
    """Return the expected best score against the number of trials (Dodge et al. 2019)."""
    study = results.study
    key = charts.methods_key((cell.method for cell in found.cells), study)
    most = max(len(cell.expected) for cell in found.cells)
    last = {(cell.task, cell.method): cell.expected[-1] for cell in found.cells}
    n, tasks = _seeds(found), _tasks(found)
    return Figure(
        "trials",
        "Expected best score against the number of trials",
        f"{n} of each trial, on the rows held out for choosing.",
        wording.sentences(
            "The highest mean score × 100 that a number of trials is expected to find, if they are "
            "drawn with replacement from those that ran (Dodge et al. 2019, Show Your Work). "
            f"A trial is the mean over its seeds ({n}), on rows held out of the training rows; one "
            "with a failed seed counts as the majority class, or the mean.",
            "It has no interval: it describes these trials. A line that still rises asks for more "
            "of them.",
            words.AXES,
        ),
        f"Expected best scores × 100 of {most} trials by task: "
        f"{words.best_and_worst(last, study.labels)}.",
        f"score: {words.SCORE_UNIT}; trials: number",
        SOURCES,
        [
            row(task=cell.task, method=cell.method, metric=cell.metric, trials=number, value=best)
            for cell in found.cells
            for number, best in enumerate(cell.expected, 1)
        ],
        [_expected_panel(task, key, found, most) for task in tasks],
        charts.columns_for(len(tasks), key),
    )


def first_tuned(found: Tuning) -> str:
    """Return the learning rate if it was tuned, else the first hyperparameter that was."""
    names = list(found.cells[0].chosen)
    return "learning_rate" if "learning_rate" in names else names[0]


def _tasks(found: Tuning) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in found.cells))


def _seeds(found: Tuning) -> str:
    counts = {of.scored.n for cell in found.cells for of in cell.trials} - {0}
    return wording.counted(counts or {0}, "seed")


def _intervals(key: charts.Key) -> str:
    if banded(key):
        return (
            "Vertical lines are 95% intervals of the mean, over seeds and held-out rows, cut where "
            "no score can be."
        )
    return "The 95% intervals, over seeds and held-out rows, are in the data, not drawn."


def _trial_rows(cell: TunedCell, tuned: str) -> list[Row]:
    """Return a row a trial; of those with the same value of `tuned` the best is `drawn`."""
    best: dict[float, ScoredTrial] = {}
    for of in cell.trials:
        held = best.get(of.values[tuned])
        if of.scored.reported is not None and (held is None or _rank(of, cell) > _rank(held, cell)):
            best[of.values[tuned]] = of
    return [
        row(task=cell.task, method=cell.method, metric=cell.metric, value=of.values[tuned])
        | row(**{f"of {name}": value for name, value in of.values.items()})
        | row(n=of.scored.n, mean=of.scored.mean, low=of.scored.low, high=of.scored.high)
        | row(reported=of.scored.reported, failed=len(of.scored.failed))
        | row(learned=of.scored.learned, chosen=of.values == cell.chosen)
        | row(drawn=best.get(of.values[tuned]) is of)
        for of in cell.trials
    ]


def _rank(of: ScoredTrial, cell: TunedCell) -> tuple[bool, bool, float]:
    """Order trials as choosing does: the winner, then those whose seeds all have a score."""
    return of.values == cell.chosen, not of.scored.failed, of.scored.reported or 0.0


def _scores_panel(
    task: str, rows: Sequence[Row], key: charts.Key, found: Tuning, name: str
) -> alt.LayerChart:
    values = sorted({value for line in rows if isinstance(value := line["value"], (int, float))})
    log = values[0] > 0
    scale = alt.Scale(type="log" if log else "linear", nice=False, padding=12)
    axis = alt.Axis(format="~g", labelOverlap=True, tickCount=4)
    powers = [10.0**power for power in range(-9, 9) if values[0] <= 10.0**power <= values[-1]]
    if len(values) <= MOST_TICKS:
        axis.values = values
    elif log and len(powers) > 1:
        axis.values = powers
    metric = next(cell.metric for cell in found.cells if cell.task == task)
    title = f"{metric} × 100"
    base = charts.scaled(100, "mean", "low", "high").transform_filter(
        f"datum.task == {task!r} && datum.drawn"
    )
    base = base.encode(
        x=alt.X("value:Q", title=name, scale=scale, axis=axis),
        y=charts.y_of("mean_shown", title, charts.NICE),
        color=key.colour(),
    )
    points = base.encode(shape=key.shape())
    layers = [
        key.dashed(base).mark_line(strokeWidth=1.8),
        points.mark_point(size=34, strokeWidth=1.4, opacity=1),
        points.transform_filter("datum.chosen")
        .mark_point(size=95, strokeWidth=2, opacity=1, fillOpacity=0.6)
        .encode(fill=key.fill()),
    ]
    if banded(key):
        # Two seeds may leave an interval that is wider than all scores that there are.
        least = -100 if metric.startswith(CORRELATIONS) else 0
        cut = base.transform_filter("isValid(datum.low)").transform_calculate(
            low_shown=f"max(datum.low_shown, {least})", high_shown="min(datum.high_shown, 100)"
        )
        spread = cut.mark_rule(strokeWidth=1.5, opacity=0.6)
        ends = spread.encode(y=charts.y_of("low_shown", title, charts.NICE), y2="high_shown:Q")
        layers.insert(0, ends)
    width, height = _size(key, found)
    return alt.LayerChart(layer=layers, title=task, width=width, height=height)


def _expected_panel(task: str, key: charts.Key, found: Tuning, most: int) -> alt.LayerChart:
    metric = next(cell.metric for cell in found.cells if cell.task == task)
    axis = alt.Axis(format="d", labelOverlap=True, tickMinStep=1, tickCount=min(most, 6))
    scale = alt.Scale(zero=False, nice=False, padding=12)
    base = charts.scaled(100, "value").transform_filter(f"datum.task == {task!r}")
    base = base.encode(
        x=alt.X("trials:Q", title="trials", scale=scale, axis=axis),
        y=charts.y_of("value_shown", f"{metric} × 100"),
        color=key.colour(),
    )
    layers = [
        key.dashed(base).mark_line(strokeWidth=1.8),
        base.mark_point(size=34, strokeWidth=1.4, opacity=1).encode(shape=key.shape()),
    ]
    width, height = _size(key, found)
    return alt.LayerChart(layer=layers, title=task, width=width, height=height)


def _size(key: charts.Key, found: Tuning) -> tuple[int, int]:
    columns = charts.columns_for(len(_tasks(found)), key)
    height = 170 if len(key.names) <= charts.MANY else 220
    return charts.panel_width(columns, 0, 46), height
