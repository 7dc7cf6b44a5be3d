"""Scores against costs with the Pareto front, and the methods' ranks, over all tasks."""

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.front import COSTS, Front, front_words, fronts, left_out, unmeasured
from peft_study.findings.results import Results
from peft_study.records.scores import Overall

SHOWN = {"parameters": 1.0, "memory": 1e-6, "seconds": 1e3}  # factors of what axes show
AXES = {"parameters": "trained parameters", "memory": "MB at the peak", "seconds": "ms a step"}
MEASURES = {"rank": "rank, 1 is best", "iqm": "interquartile mean × 100"}
MEASURES["better"] = "better than full, % of pairs"


def front(results: Results) -> Figure | None:
    """Return the score against every cost, over all tasks; None if no method has both."""
    study, found = results.study, fronts(results)
    if not found:
        return None
    names = list(dict.fromkeys(point.method for of in found for point in of.points))
    key = charts.methods_key(names, study)
    tasks = list(study.main_metrics.items())
    score = f"{tasks[0][1]}, median" if len(tasks) == 1 else "mean of the tasks' medians"
    where = tasks[0][0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    n = wording.counted((len(cell.seeds) for cell in results.cells.values()), "seed")
    out = [f"{study.label(name)}: {why}" for name, why in left_out(results).items()]
    return Figure(
        "front",
        f"Score against cost, and what no other method beats in both: {where}",
        f"{n}. Line and filled shapes: on the Pareto front, by medians; open shapes: beaten.",
        wording.sentences(
            f"The score × 100 ({score}, {n}, of rows that chose no evaluation) against what a "
            "method costs. On the front, filled and joined by a line, is what no other method "
            "beats, with as good a score at a lower cost or a better one at no higher cost.",
            *(line for of in found for line in front_words(results, of)),
            unmeasured(results),
            f"Without a place here: {'; '.join(out)}." if out else "",
            "Axes do not begin at 0; that of the parameters is logarithmic.",
        ),
        " ".join(front_words(results, of)[0] for of in found),
        "score: fraction, shown × 100; parameters: number; memory: bytes, shown in MB; seconds: s, "
        "shown in ms",
        ["metrics/statistics.json", "metrics/runs", *["metrics/profile.json"] * (len(found) > 1)],
        [
            row(cost=of.cost, method=point.method, score=point.score, value=point.cost)
            | row(front=point.on_front)
            for of in found
            for point in of.points
        ],
        [_panel(of, key, len(found), score) for of in found],
        columns=len(found),
    )


def _panel(of: Front, key: charts.Key, panels: int, title: str) -> alt.LayerChart:
    factor, log = SHOWN[of.cost], of.cost == "parameters"
    costs = [point.cost * factor for point in of.points]
    base = charts.scaled(factor, "value").transform_calculate(score_shown="100 * datum.score")
    base = base.transform_filter(f"datum.cost == {of.cost!r}")
    if log:
        ends = [min(costs) / 2, max(costs) * 2]
        powers = [10**power for power in range(12) if ends[0] <= 10**power <= ends[1]]
        axis = alt.Axis(values=powers or sorted(set(costs)), format="~s", labelOverlap=True)
        scale = alt.Scale(type="log", domain=ends, nice=False)
    else:
        axis, scale = alt.Axis(tickCount=3, labelOverlap=True), charts.NICE
    x = alt.X("value_shown:Q", title=AXES[of.cost], axis=axis, scale=scale)
    base = base.encode(x=x, y=charts.y_of("score_shown", f"{title}, × 100"))
    points = base.encode(color=key.colour(), shape=key.shape())
    layers = [
        base.transform_filter("datum.front").mark_line(
            interpolate="step-after", color="#999999", strokeWidth=1.5, strokeDash=[4, 3]
        ),
        *charts.on_front(points, key, 75),
    ]
    width = charts.panel_width(panels, 0, 46) if panels > 1 else 420
    return alt.LayerChart(layer=layers, title=COSTS[of.cost].capitalize(), width=width, height=230)


def ranks(results: Results) -> Figure | None:
    """Return ranks with intervals and, from six tasks on, what else is told over all tasks."""
    found = sorted(results.statistics.overall, key=lambda of: of.rank)
    if not found:
        return None
    study, tasks = results.study, found[0].tasks
    shown = [name for name in MEASURES if any(_of(of, name)[0] is not None for of in found)]
    key = charts.methods_key((of.method for of in found), study)
    order = [of.method for of in found]
    n = wording.counted((len(cell.seeds) for cell in results.cells.values()), "seed")
    over = f"{tasks} task{'' if tasks == 1 else 's'}"
    slow = {of.method for of in results.statistics.unlearned if of.whole and of.rank is None}
    if slow >= set(order):
        return None
    unlearned = ", ".join(study.label(name) for name in order if name in slow)
    told = [
        f"{study.label(of.method)} {of.rank:g} ({of.rank_low} to {of.rank_high})" for of in found
    ]
    return Figure(
        "ranks",
        f"Methods over {over}",
        f"{n}; shapes: values; lines: 95% intervals, those of the ranks all together.",
        wording.sentences(
            f"A method's rank by its mean score over {over}, 1 the best ({n}, of rows that chose "
            f"no evaluation): {'; '.join(told)}.",
            "A rank's interval counts the methods that are told apart by that mean, over seeds and "
            "held-out rows, corrected for all pairs: it reaches from one more than are better to "
            "as many as there are without those that are worse. It speaks of these tasks alone.",
            f"Ranked though they have not learned every task: {unlearned}." if unlearned else "",
            "The interquartile mean is that of all runs without the lowest and the highest quarter."
            if "iqm" in shown
            else "Fewer than six tasks have neither interquartile mean nor improvement.",
        ),
        f"Ranks from {told[0]} to {told[-1]}.",
        "rank: none; iqm: fraction, shown × 100; better: fraction, shown in %",
        ["metrics/statistics.json"],
        [_row(of, name) for name in shown for of in found],
        [_measure(name, key, order, number, len(shown)) for number, name in enumerate(shown)],
        columns=len(shown),
    )


def _measure(
    name: str, key: charts.Key, order: list[str], number: int, panels: int
) -> alt.LayerChart:
    factor = 1 if name == "rank" else 100
    y = key.y(labelled=number == 0, width=charts.BAR_LABELS, order=order)
    base = charts.scaled(factor, "value", "low", "high")
    base = base.transform_filter(f"datum.measure == {name!r}").encode(y=y)
    base = base.encode(color=key.colour(legend=False))
    low, value = (charts.x_of(f"{of}_shown", MEASURES[name]) for of in ("low", "value"))
    if name == "rank":
        scale = alt.Scale(domain=[0.5, len(order) + 0.5], nice=False)
        low, value = low.scale(scale), value.scale(scale)
    points = base.mark_point(filled=True, size=70, opacity=1)
    layers = [
        base.mark_rule(strokeWidth=2).encode(x=low, x2="high_shown:Q"),
        points.encode(x=value, shape=key.shape(legend=False)),
    ]
    width = charts.panel_width(panels, charts.BAR_LABELS) if panels > 1 else 360
    return alt.LayerChart(layer=layers, width=width, height=26 * len(order))


def _of(of: Overall, name: str) -> list[float | None]:
    return [getattr(of, name + end) for end in ("", "_low", "_high")]


def _row(of: Overall, name: str) -> Row:
    value, low, high = _of(of, name)
    return row(method=of.method, measure=name, tasks=of.tasks, value=value, low=low, high=high)
