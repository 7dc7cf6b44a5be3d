"""Scores of the methods: by task, and against the parameters that they train."""

from collections.abc import Sequence

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts, words
from peft_study.findings.figures.figure import Figure, Row, Scalar, row
from peft_study.findings.front import fronts
from peft_study.findings.published import of_own_settings
from peft_study.findings.results import PublishedRow, Results
from peft_study.records.scores import CellStatistics

SCORED = {"cross_fitted": "The cross-fitted score", "last": "The last evaluation"}
SOURCES = ["metrics/statistics.json", "metrics/runs"]


def scores(
    results: Results, cells: list[CellStatistics], published: Sequence[PublishedRow]
) -> Figure:
    """Return the score by task and method: means with intervals, single seeds, published values."""
    study = results.study
    means = [_row(c, c.mean, kind="mean", n=c.n, low=c.low, high=c.high) for c in cells]
    seeds = [
        _row(c, value, kind="seed", seed=int(seed))
        for c in cells
        if (run := results.cells.get((c.method, c.task)))
        for seed, value in run.scores(c.metric, c.evaluation).items()
    ]
    reported = results.statistics.at(study.report) if study.judged != study.report else {}
    medians = [
        _row(best, best.median, kind="reported", n=best.n)
        for c in cells
        if (best := reported.get((c.method, c.task, c.metric)))
    ]
    shown = {(cell.task, cell.method, cell.metric) for cell in cells}
    papers = [
        _row(p, p.published, kind="published" if p.like else "unlike", source=p.source)
        for p in published
        if p.is_fraction and (p.task, p.method, p.metric) in shown and of_own_settings(p, study)
    ]
    none = row(n=None, low=None, high=None, seed=None, source=None)
    key = charts.methods_key((cell.method for cell in cells), study)
    metrics = {cell.task: cell.metric for cell in cells}
    values = {(cell.task, cell.method): cell.mean for cell in cells}
    columns = charts.columns_of(len(metrics))
    sources = ", ".join(dict.fromkeys(str(paper["source"]) for paper in papers))
    those = "publish of the same task, metric and method"
    grey = any(paper["kind"] == "unlike" for paper in papers)
    n = wording.counted((cell.n for cell in cells), "seed")
    return Figure(
        "scores",
        "Score by task and method",
        f"{n}. Shapes: mean over seeds; lines: its 95% interval; grey ticks: single seeds"
        f"{'; rings: as papers report' if medians else ''}"
        f"{'; crosses (×): published' if papers else ''}{', grey if unlike' if grey else ''}.",
        wording.sentences(
            f"{SCORED[study.judged]} of every run, by the main metric of each task, × 100; {n}.",
            "Filled shapes are means over seeds and lines their 95% intervals, over seeds and "
            "held-out rows"
            + (", which one seed does not have" if any(c.low is None for c in cells) else "")
            + "; grey ticks below are single seeds.",
            "Rings above are medians of the best evaluation, chosen on the rows that score it, as "
            "papers report them."
            if medians
            else "",
            f"Crosses above are the values that papers {those}: {sources}." if papers else "",
            "Those in grey are of another model, start or size, as metrics/published.json says."
            if grey
            else "",
            words.AXES,
            wording.missing(results.statistics.gaps, results.study),
        ),
        f"Mean scores × 100 by task: {words.best_and_worst(values, study.labels)}.",
        words.SCORE_UNIT,
        SOURCES + (["metrics/published.json"] if papers else []),
        [none | score for score in means + seeds + medians + papers],
        [
            _panel(task, metrics[task], key, columns, at, papers + medians)
            for at, task in enumerate(metrics)
        ],
    )


def _panel(
    task: str, metric: str, key: charts.Key, columns: int, number: int, above: list[Row]
) -> alt.LayerChart:
    """Return the scores on a task; a layer of `above` without rows would spoil the axis."""
    title = f"{metric} × 100"
    base = charts.scaled(100, "value", "low", "high").transform_filter(f"datum.task == {task!r}")
    base = base.encode(y=key.y(labelled=number % columns == 0))
    x = charts.x_of("value_shown", title)
    colour, shape = key.colour(legend=False), key.shape(legend=False)
    means = base.transform_filter("datum.kind == 'mean'").encode(color=colour)
    seeds = base.transform_filter("datum.kind == 'seed'").encode(x=x)
    spread = means.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    layers = [
        spread.encode(x=charts.x_of("low_shown", title), x2="high_shown:Q"),
        seeds.mark_tick(size=7, thickness=1.2, color="#666666", yOffset=9),
        means.mark_point(filled=True, size=70, opacity=1).encode(x=x, shape=shape),
    ]
    if any((row["task"], row["kind"]) == (task, "reported") for row in above):
        rings = base.transform_filter("datum.kind == 'reported'").encode(x=x, color=colour)
        layers.append(rings.mark_point(shape="circle", size=40, strokeWidth=1.5, yOffset=-9))
    for kind, shade in (("unlike", "#999999"), ("published", "black")):
        if any((row["task"], row["kind"]) == (task, kind) for row in above):
            crosses = base.transform_filter(f"datum.kind == '{kind}'").encode(x=x)
            crosses = crosses.mark_point(shape=charts.SAW, size=60, strokeWidth=1.5, yOffset=-9)
            layers.append(crosses.encode(stroke=alt.value(shade)))
    width = charts.panel_width(columns, each=8)
    return alt.LayerChart(layer=layers, title=task, width=width, height={"step": 34})


def parameters(results: Results, cells: list[CellStatistics]) -> Figure:
    """Return the score against the trained parameters, on a logarithmic axis."""
    trained = [results.cells[cell.method, cell.task].trainable for cell in cells]
    counts = [found.adapter for found in trained if found]
    smallest, largest = min(counts), max(counts)
    ends = [smallest / 2, largest * 2]
    powers = [10**power for power in range(12) if ends[0] <= 10**power <= ends[1]]
    x = alt.X("parameters:Q", title="trained parameters").scale(type="log", domain=ends, nice=False)
    x = x.axis(values=powers or sorted(set(counts)), format="~s", labelOverlap=True)
    key = charts.methods_key((cell.method for cell in cells), results.study)
    metrics = {cell.task: cell.metric for cell in cells}
    values = {(cell.task, cell.method): cell.mean for cell in cells}
    columns = charts.columns_for(len(metrics), key)
    width = charts.panel_width(columns, 0, 46)
    members = {
        (task, point.method)
        for task in metrics
        for of in fronts(results, task)
        for point in of.members
        if of.cost == "parameters"
    }
    height, panels = 150 if len(key.names) <= charts.MANY else 220, []
    for task, metric in metrics.items():
        title = f"{metric} × 100"
        base = charts.scaled(100, "value", "low", "high").encode(x=x, color=key.colour())
        base = base.transform_filter(f"datum.task == {task!r}")
        spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5)
        points = base.encode(shape=key.shape(), y=charts.y_of("value_shown", title))
        layers = [
            spread.encode(y=charts.y_of("low_shown", title), y2="high_shown:Q"),
            *charts.on_front(points, key, 85),
        ]
        panels.append(alt.LayerChart(layer=layers, title=task, width=width, height=height))
    n = wording.counted((cell.n for cell in cells), "seed")
    return Figure(
        "parameters",
        "Score against trained parameters",
        f"{n}; lines: 95% intervals of the mean; filled: on the front, by medians. Log axis, head "
        "left out.",
        wording.sentences(
            f"{SCORED[results.study.judged]}, the mean over seeds × 100 ({n}), against the "
            "parameters that a method trains, the classification head left out, on a logarithmic "
            "axis.",
            "Lines are 95% intervals of the mean, over seeds and held-out rows. Methods that "
            "train equally many parameters to equal scores lie upon each other. Filled shapes are "
            "on the task's Pareto front: no other method has, by medians, as good a score with "
            "fewer parameters, or a better one with no more.",
            f"Score {words.AXES.lower()}",
            wording.missing(results.statistics.gaps, results.study),
        ),
        f"Methods train from {smallest:,} to {largest:,} parameters; mean scores × 100: "
        f"{words.best_and_worst(values, results.study.labels)}.",
        f"score: {words.SCORE_UNIT}; parameters: number",
        SOURCES,
        [
            _row(c, c.mean, n=c.n, low=c.low, high=c.high, parameters=count)
            | row(front=(c.task, c.method) in members)
            for c, count in zip(cells, counts, strict=True)
        ],
        panels,
        columns,
    )


def main_cells(results: Results) -> list[CellStatistics]:
    """Return the cells' main metrics, of rows that chose no evaluation."""
    study = results.study
    cells = results.statistics.at(study.judged)
    keys = [(method, *main) for main in study.main_metrics.items() for method in study.labels]
    return [cells[key] for key in keys if key in cells]


def _row(of: CellStatistics | PublishedRow, value: float, **more: Scalar) -> Row:
    return row(task=of.task, method=of.method, metric=of.metric, value=value) | more
