"""What it takes to reach an equal score."""

from collections import Counter

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts
from peft_study.findings.figures.figure import Figure, row
from peft_study.findings.results import Results
from peft_study.records.costs import IsoAccuracy
from peft_study.records.scores import EqualScoreRun

COSTS = {"epoch": "epochs", "seconds": "seconds of training", "joules": "joules of training"}


def equal_scores(results: Results, iso: IsoAccuracy) -> Figure:
    """Return the epochs, seconds and joules until each run first reaches its task's target."""
    runs, labels = iso.runs, results.study.labels
    reached = [run for run in runs if run.reached]
    costs = [c for c in COSTS if any(getattr(r, c) is not None for r in reached)] or ["epoch"]
    by_task = {t: [r for r in runs if r.task == t] for t in dict.fromkeys(r.task for r in runs)}
    key = charts.methods_key((run.method for run in runs), results.study)
    columns = 4 if len(costs) == 2 and len(by_task) > 1 else len(costs)
    drawn = [(mine, cost) for mine in by_task.values() for cost in costs]
    panels = [_panel(mine, cost, key, columns, number) for number, (mine, cost) in enumerate(drawn)]
    all_of = Counter((run.task, run.method) for run in runs)
    short = all_of - Counter((run.task, run.method) for run in reached)
    never = [f"{labels[m]} on {t} {count} of {all_of[t, m]}" for (t, m), count in short.items()]
    ran, hits = (Counter(run.method for run in some) for some in (runs, reached))
    shares = [f"{label} {hits[method]} of {ran[method]}" for method, label in key.names.items()]
    n = wording.counted(all_of.values(), "seed")
    return Figure(
        "equal_scores",
        "Cost of reaching an equal score",
        f"{n}; a shape: one seed; at the right: runs that reach.",
        wording.sentences(
            "What each run had spent when it first reached its task's target: the lower of the "
            "medians over seeds of the best scores of LoRA and full fine-tuning, minus "
            f"{100 * iso.margin:g} points. A shape is a seed ({n}); the numbers at the right count "
            "the runs that reached it.",
            "Seconds are the runs' own; on CPUs those of the processor.",
            f"Joules: {iso.energy.source}." if "joules" in costs else "Joules were not measured.",
            f"Runs that never reached it: {'; '.join(never)}." if never else "All runs reached it.",
            wording.missing(results.statistics.gaps, results.study),
        ),
        f"{len(reached)} of {len(runs)} runs reach the equal score of their task: "
        f"{', '.join(shares)}.",
        "epoch: epochs; seconds: s; joules: J",
        ["metrics/iso_accuracy.json"],
        [
            row(task=run.task, method=run.method, seed=run.seed, target=run.target)
            | row(reached=run.reached, cost=cost, value=getattr(run, cost))
            for cost in costs
            for run in runs
        ],
        panels,
        columns,
    )


def _panel(
    runs: list[EqualScoreRun], cost: str, key: charts.Key, columns: int, number: int
) -> alt.LayerChart:
    """Return one cost of the runs of a task; the first, in epochs, is headed by the task."""
    task, target = runs[0].task, f"to reach {wording.percent(runs[0].target)}"
    base = alt.Chart().transform_filter(f"datum.task == {task!r} && datum.cost == {cost!r}")
    base = base.encode(y=key.y(labelled=number % columns == 0))
    points = base.transform_filter("datum.reached").mark_point(filled=True, size=20, opacity=1)
    counts = base.transform_aggregate(hits="sum(reached)", runs="count()", groupby=["method"])
    counts = counts.transform_calculate(share="datum.hits + '/' + datum.runs")
    width = charts.panel_width(columns, each=26)
    most = max((spent for r in runs if (spent := getattr(r, cost)) is not None), default=1.0)
    fitted = alt.Scale(domain=[0, 1.08 * most], nice=False)
    x = alt.X("value:Q", title=COSTS[cost], scale=fitted, axis=alt.Axis(tickCount=3, format="~s"))
    seeds = alt.YOffset("seed:O", scale=alt.Scale(paddingOuter=1.0))
    colour, shape = key.colour(legend=False), key.shape(legend=False)
    text = counts.mark_text(align="left", fontSize=10, color="#444444")
    layers = [
        points.encode(x=x, yOffset=seeds, color=colour, shape=shape),
        text.encode(x=alt.value(width + 5), text="share:N"),
    ]
    heading, below = (task, target) if cost == "epoch" else ("", "")
    title = alt.TitleParams(heading, subtitle=below, subtitleFontSize=11)
    return alt.LayerChart(layer=layers, title=title, width=width, height=26 * len(key.names))
