"""The sweep of LoRA's ranks and sets of weights."""

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts, words
from peft_study.findings.figures.curves import curve_row, marks_of, over_epochs, ranges_of
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.results import Results
from peft_study.records.scores import CurvePoint, SweepRow


def rank_weights(results: Results) -> Figure:
    """Return the medians as a table of ranks and weights (Hu et al. 2021, table 6)."""
    found = results.main_sweep
    task, metric = found[0].task, found[0].metric
    weights, ranks = _order(results)
    planned = [f"{name} at rank {rank}" for name in weights for rank in ranks]
    missing = [cell for cell in planned if cell not in map(_cell, found)]
    axis = alt.Axis(labelLimit=150, ticks=False)
    base = charts.scaled(100, "median").encode(
        x=alt.X("rank:O", sort=ranks, title="rank r", axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("weights:N", sort=weights, title="weights", axis=axis),
    )
    pale = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0.0, 0.55]), zero=False)
    legend = alt.Legend(title=f"median {metric} × 100", orient="bottom", gradientLength=200)
    colour = alt.Color("median_shown:Q", scale=pale, legend=legend)
    ns = base.transform_calculate(counted="'n = ' + datum.n").encode(text="counted:N")
    layers = [
        base.mark_rect(stroke="white", strokeWidth=2).encode(color=colour),
        base.mark_text(dy=-6, fontSize=12).encode(text=alt.Text("median_shown:Q", format=".1f")),
        ns.mark_text(dy=9, fontSize=10, color="#222222"),
    ]
    n = wording.counted((cell.n for cell in found), "seed")
    best, worst = (pick(found, key=lambda cell: cell.median) for pick in (max, min))
    return Figure(
        "rank_weights",
        f"LoRA at every rank with every set of weights: {task}",
        f"Median {metric} × 100; {n} in each cell.",
        wording.sentences(
            f"The median {metric} × 100 over seeds of LoRA on {task}, by the rank and by the "
            f"weights that it adapts; each cell has its number of seeds ({n}).",
            "Darker is higher.",
            f"No results for: {', '.join(missing)}." if missing else "",
        ),
        f"Median {metric} × 100 on {task}: from {wording.percent(worst.median)} with "
        f"{_cell(worst)} to {wording.percent(best.median)} with {_cell(best)}.",
        words.SCORE_UNIT,
        ["metrics/sweep.json"],
        [
            row(task=task, metric=metric, weights="+".join(cell.weights), rank=cell.rank, n=cell.n)
            | row(median=cell.median, std=cell.std, trainable_adapter=cell.trainable_adapter)
            for cell in found
        ],
        [alt.LayerChart(layer=layers, width=min(470, 84 * len(ranks)), height={"step": 40})],
    )


def rank_curves(results: Results) -> Figure:
    """Return scores against the rank: medians and single seeds of each set of weights."""
    found = results.main_sweep
    task, metric = found[0].task, found[0].metric
    runs = {(cell.weights, cell.rank): cell.scores(metric) for cell in results.sweep_runs}
    rows: list[Row] = []
    for cell in found:
        same = row(task=task, metric=metric, weights="+".join(cell.weights), rank=cell.rank)
        rows.append(same | row(kind="median", seed=None, n=cell.n, value=cell.median))
        for seed, value in runs.get((cell.weights, cell.rank), {}).items():
            rows.append(same | row(kind="seed", seed=int(seed), n=None, value=value))
    weights, ranks = _order(results)
    key = charts.series_key("weights", weights)
    scale = alt.Scale(type="log", base=2, nice=False, padding=12)
    base = charts.scaled(100, "value").encode(
        x=alt.X("rank:Q", title="rank r", scale=scale, axis=alt.Axis(values=ranks, format="d")),
        y=charts.y_of("value_shown", f"{metric} × 100", charts.NICE),
        color=key.colour(),
    )
    medians = base.transform_filter("datum.kind == 'median'")
    seeds = base.transform_filter("datum.kind == 'seed'")
    layers = [
        seeds.mark_point(shape="circle", filled=True, size=12, opacity=0.6),
        medians.mark_line(strokeWidth=1.8),
        medians.mark_point(size=70, strokeWidth=1.8, opacity=1).encode(shape=key.shape()),
    ]
    n = wording.counted((cell.n for cell in found), "seed")
    best = max(found, key=lambda cell: cell.median)
    return Figure(
        "rank_curves",
        f"Score against LoRA's rank: {task}",
        f"{n}; shapes and lines: medians; dots: single seeds.",
        wording.sentences(
            f"The {metric} × 100 of LoRA on {task} against its rank, by the weights that it "
            f"adapts. Shapes and lines are medians over seeds ({n}), dots are single seeds.",
            "Ranks stand on a logarithmic axis; that of the score does not begin at 0.",
        ),
        f"Over ranks {min(ranks)} to {max(ranks)} on {task}, the highest median {metric} × 100 is "
        f"{wording.percent(best.median)}, with {_cell(best)}.",
        words.SCORE_UNIT,
        ["metrics/sweep.json", "metrics/runs/variants.json"],
        rows,
        [alt.LayerChart(layer=layers, width=charts.panel_width(1, 0, 50), height=260)],
    )


def rank_learning_curves(results: Results) -> Figure:
    """Return learning curves of each rank, by LoRA's weights, beside full fine-tuning's."""
    points = results.sweep_curves
    task, metric = points[0].task, points[0].metric
    labels = {m.name: m.label for m in results.study.methods if m.family == "full"}
    full = [point for point in results.curves if point.task == task and point.method in labels]
    shown = {
        "+".join(weights): [*(point for point in points if point.weights == weights), *full]
        for weights in dict.fromkeys(point.weights for point in points)
    }
    ranks = sorted({point.rank for point in points if point.rank is not None})
    full_labels = dict.fromkeys(labels[point.method] for point in full)
    key = charts.series_key("series", [*(f"r = {rank}" for rank in ranks), *full_labels])
    n = wording.counted((point.n for point in [*points, *full]), "seed")
    best = max(points, key=lambda point: point.mean)
    return Figure(
        "rank_learning_curves",
        f"Learning curves by LoRA's rank: {task}",
        f"{n}; {marks_of(key)}",
        wording.sentences(
            f"The mean {metric} × 100 over seeds ({n}) on {task} at every evaluation, a line for "
            "each rank and a panel for each set of weights that LoRA adapts.",
            "The line of full fine-tuning is the same in every panel." if full else "",
            ranges_of(key),
        ),
        f"The highest mean {metric} × 100 of LoRA on {task} is {wording.percent(best.mean)}, with "
        f"{_cell(best)} after {best.epoch:g} epochs.",
        f"score: {words.SCORE_UNIT}; epoch: epochs",
        ["metrics/sweep_curves.json", *(["metrics/curves.json"] if full else [])],
        [
            curve_row(p) | row(weights=w, rank=p.rank, series=labels.get(p.method, f"r = {p.rank}"))
            for w, mine in shown.items()
            for p in mine
        ],
        [over_epochs(w, mine, key, len(shown), "weights") for w, mine in shown.items()],
        charts.columns_for(len(shown), key),
    )


def _order(results: Results) -> tuple[list[str], list[int]]:
    """Return the sets of weights and the ranks of the sweep, planned ones without results too."""
    planned, found = results.study.sweep, results.main_sweep
    weights = map("+".join, [*planned.weights, *(cell.weights for cell in found)])
    return list(dict.fromkeys(weights)), sorted({*planned.ranks, *(cell.rank for cell in found)})


def _cell(cell: SweepRow | CurvePoint) -> str:
    return f"{'+'.join(cell.weights)} at rank {cell.rank}"
