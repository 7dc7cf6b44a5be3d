"""Every evaluation of the runs: learning curves, and how much seeds differ."""

from collections.abc import Sequence
from dataclasses import asdict

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts, words
from peft_study.findings.figures.figure import Figure, Row
from peft_study.findings.results import Results
from peft_study.records.scores import CurvePoint, StabilityPoint

Points = Sequence[CurvePoint | StabilityPoint]


def curves(results: Results) -> Figure:
    """Return the learning curves: means with the range over seeds."""
    points = results.curves
    n = wording.counted((point.n for point in points), "seed")
    tasks = list(dict.fromkeys(point.task for point in points))
    last = {(point.task, point.method): point.mean for point in points}
    key = charts.methods_key((point.method for point in points), results.study)
    return Figure(
        "curves",
        "Learning curves",
        f"{n}; {marks_of(key)}",
        wording.sentences(
            f"The mean over seeds ({n}) of each task's main metric × 100 at every evaluation.",
            ranges_of(key),
            words.AXES,
            wording.missing(results.statistics.gaps, results.study),
        ),
        "Mean scores × 100 at the last evaluation by task: "
        f"{words.best_and_worst(last, results.study.labels)}.",
        f"score: {words.SCORE_UNIT}; epoch: epochs",
        ["metrics/curves.json"],
        [curve_row(point) for point in points],
        [over_epochs(t, [p for p in points if p.task == t], key, len(tasks)) for t in tasks],
        charts.columns_for(len(tasks), key),
    )


def stability(results: Results, points: list[StabilityPoint]) -> Figure:
    """Return the coefficients of variation over seeds at each evaluation that has one."""
    n = wording.counted((point.n for point in points), "seed")
    undefined = len(results.stability) - len(points)
    tasks = list(dict.fromkeys(point.task for point in points))
    why = "for want of a second seed or of a mean clearly above zero"
    last = {(point.task, point.method): point.cv or 0.0 for point in points}
    key = charts.methods_key((point.method for point in points), results.study)
    return Figure(
        "stability",
        "Stability: how much seeds differ",
        f"{n}; standard deviation / mean, lower: steadier.",
        wording.sentences(
            f"The coefficient of variation over seeds ({n}): their standard deviation over their "
            "mean score, in %, at every evaluation. Lower is steadier.",
            f"At {undefined} evaluations it is undefined, {why}." if undefined else "",
            wording.missing(results.statistics.gaps, results.study),
        ),
        "Coefficients of variation in % at the last evaluation by task: "
        f"{words.best_and_worst(last, results.study.labels)}.",
        "fraction, shown in %",
        ["metrics/stability.json"],
        [asdict(point) | {"metric": "coefficient of variation"} for point in points],
        [over_epochs(t, [p for p in points if p.task == t], key, len(tasks)) for t in tasks],
        charts.columns_for(len(tasks), key),
    )


def over_epochs(
    name: str, points: Points, key: charts.Key, panels: int, by: str = "task"
) -> alt.LayerChart:
    """Return one of `panels` panels by epochs, a line for each value of `key`.

    It shows the rows whose field `by` is its `name`, and which `points` are: the mean and range of
    a metric, or the coefficient of variation.
    """
    first = points[0]
    epochs = sorted({point.epoch for point in points})
    # Marks on every evaluation of a long run would hide its line.
    marked = epochs[:: max(1, -(-len(epochs) // 8))]
    few = {"values": epochs} if len(epochs) <= 3 else {"tickCount": 4}
    if isinstance(first, CurvePoint):
        fields, axis, scale = ["mean", "low", "high"], f"{first.metric}, × 100", charts.FITTED
    else:
        highest = max(point.cv or 0.0 for point in points if isinstance(point, StabilityPoint))
        fields, axis = ["cv"], "CV, %"
        scale = alt.Scale(domain=[0, 108 * highest], nice=False, padding=0)
    x = alt.X("epoch:Q", title="epochs", scale=alt.Scale(zero=False, nice=False, padding=8))
    base = charts.scaled(100, *fields).transform_filter(f"datum.{by} == {name!r}")
    base = base.encode(x=x.axis(**few, labelOverlap=True), color=key.colour())
    y = charts.y_of(f"{fields[0]}_shown", axis, scale)
    marks = base.transform_filter(alt.FieldOneOfPredicate("epoch", marked))
    layers = [
        key.dashed(base).mark_line(strokeWidth=1.8).encode(y=y),
        marks.mark_point(size=34, strokeWidth=1.4, opacity=1).encode(y=y, shape=key.shape()),
    ]
    if isinstance(first, CurvePoint) and banded(key):
        band = base.mark_area(opacity=0.12, line=False)
        layers.insert(0, band.encode(y=charts.y_of("low_shown", axis), y2="high_shown:Q"))
    width = charts.panel_width(charts.columns_for(panels, key), 0, 46)
    height = 150 if len(key.names) <= charts.MANY else 220
    return alt.LayerChart(layer=layers, title=name, width=width, height=height)


def banded(key: charts.Key) -> bool:
    """Tell whether ranges over seeds are drawn: those of many would hide the lines."""
    return len(key.names) <= charts.MANY


def marks_of(key: charts.Key) -> str:
    return f"lines: means{'; bands: minimum to maximum' if banded(key) else ''}."


def ranges_of(key: charts.Key) -> str:
    return words.RANGES if banded(key) else "Ranges over seeds are in the data, not drawn."


def curve_row(point: CurvePoint) -> Row:
    """Return a point of a learning curve as a row; what a cell of the sweep adds is left out."""
    return {key: value for key, value in asdict(point).items() if key not in ("weights", "rank")}
