"""The study's figures: of each the rows that it shows, its caption, and its chart."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from altair import ConcatChart  # for the class whose `alt` hides the module

from peft_study.files import replacing, write_json
from peft_study.findings.aggregate import METHOD_NAMES
from peft_study.findings.figures import charts
from peft_study.findings.results import Results

VEGA_LITE = "6.4"  # of the altair and vl-convert that are pinned
SCORE_UNIT = "fraction, shown × 100"
COSTS = {"epoch": "epochs", "seconds": "seconds of training", "joules": "joules of training"}
PARTS = {
    "libraries": "Python and libraries",
    "weights": "weights",
    "optimiser_state": "optimiser state",
    "gradients": "gradients",
    "activations": "activations",
    "allocator": "freed, held by the allocator",
}
PART_COLOURS = [charts.GREY, charts.SKY, charts.GREEN, charts.ORANGE, charts.PURPLE, charts.YELLOW]
SCORE_FILES = ["metrics/statistics.json", "metrics/runs"]
FOLDERS = ("data", "specs", "svg")
MERGED = " merged"
BASE = "base model"


@dataclass(frozen=True)
class Figure:
    """A figure: what it shows, in words, in rows and as a chart.

    Attributes:
        name: of its files.
        title: what is compared.
        caption: what the marks are, in plain words, and what is missing.
        alt: one sentence with the main figures, for those who do not see it.
        unit: of the values in `rows`, and how they are shown if otherwise.
        sources: the files of `metrics/` that it was drawn from.
        rows: tidy.
        chart: Vega-Lite, with `rows` as its data.
    """

    name: str
    title: str
    caption: str
    alt: str
    unit: str
    sources: list[str]
    rows: list[dict[str, Any]]
    chart: ConcatChart


def figures(results: Results, published: list[dict[str, Any]]) -> list[Figure]:
    """Return the figures whose data are there.

    Args:
        results: of a study; any part may be missing.
        published: `metrics/published.json`.
    """
    found = [
        _scores(results, published),
        _parameters(results),
        _curves(results),
        _stability(results),
        _rank_weights(results),
        _rank_curves(results),
        _rank_learning_curves(results),
        _step_time(results),
        _memory(results),
        _latency(results),
        _equal_scores(results),
    ]
    return [figure for figure in found if figure is not None]


def write_figures(figures: list[Figure], folder: Path) -> None:
    """Write rows, specifications, SVGs and their list into `folder`; remove those of other figures.

    Writes `data/<name>.json`, `specs/<name>.json`, `svg/<name>.svg` and `figures.json`.
    """
    listed, kept = [], set()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for figure in figures:
        data, svg = folder / "data" / f"{figure.name}.json", folder / "svg" / f"{figure.name}.svg"
        spec = folder / "specs" / f"{figure.name}.json"
        kept |= {data, svg, spec}
        write_json(data, figure.rows)
        write_json(spec, specification(figure))
        with replacing(svg) as temporary:
            temporary.write_text(render_svg(figure), encoding="utf-8")
        texts = ("name", "title", "caption", "alt", "unit", "sources")
        listed.append(
            {text: getattr(figure, text) for text in texts}
            | {"data": f"plots/data/{data.name}", "svg": f"plots/svg/{svg.name}"}
        )
    for path in {path for name in FOLDERS for path in folder.glob(f"{name}/*")} - kept:
        path.unlink()
    write_json(folder / "figures.json", listed)


def specification(figure: Figure) -> dict[str, Any]:
    """Return a figure's Vega-Lite specification, its rows inlined."""
    with alt.data_transformers.enable("default", consolidate_datasets=False, max_rows=None):
        chart = figure.chart.copy()
        chart.description = figure.alt
        return chart.to_dict()


def render_svg(figure: Figure) -> str:
    """Return a figure as SVG; nothing is fetched."""
    svg = vl_convert.vegalite_to_svg(specification(figure), VEGA_LITE, allowed_base_urls=[])
    # The converter numbers clips and gradients through its process's life: count them here anew.
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    numbers = {name: f"{figure.name}-{number}" for number, name in enumerate(names)}
    svg = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{numbers[found[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{numbers[found[1]]})", svg)


def _scores(results: Results, published: list[dict[str, Any]]) -> Figure | None:
    """Score by task and method: means with intervals, single seeds, published values."""
    rows = _main_cells(results)
    if not rows:
        return None
    report = results.study["report"]
    key = charts.methods_key(row["method"] for row in rows)
    shown = {(row["task"], row["method"]): row["metric"] for row in rows}
    means = [{**row, "kind": "mean", "seed": None, "source": None} for row in rows]
    empty = dict.fromkeys(("n", "low", "high", "seed", "source"))
    seeds = [
        {**empty, "task": task, "method": method, "metric": metric, "kind": "seed"}
        | {"seed": int(seed), "value": run[report][metric]}
        for (task, method), metric in shown.items()
        for seed, run in results.cells.get((method, task), {"seeds": {}})["seeds"].items()
    ]
    papers = [
        {**empty, "task": row["task"], "method": row["method"], "metric": row["metric"]}
        | {"kind": "published", "value": row["published"], "source": row["source"]}
        for row in published
        if row["is_fraction"]
        and shown.get((row["task"], row["method"])) == row["metric"]
        and _is_the_studys(row, results.study["adapters"])
    ]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = charts.columns_of(len(tasks))
    panels = []
    for number, task in enumerate(tasks):
        metric = next(row["metric"] for row in rows if row["task"] == task)
        base = charts.scaled(alt.Chart(), 100, "value", "low", "high")
        base = base.transform_filter(f"datum.task == {task!r}")
        x = alt.X(**charts.axis_of("value_shown", f"{metric} × 100"))
        base = base.encode(y=key.y(labelled=number % columns == 0))
        colour = key.bare_colour
        shape = key.bare_shape
        mean = base.transform_filter("datum.kind == 'mean'")
        spread = mean.transform_filter("isValid(datum.low)")
        layers = [
            spread.mark_rule(strokeWidth=2).encode(
                x=alt.X(**charts.axis_of("low_shown", f"{metric} × 100")),
                x2="high_shown:Q",
                color=colour,
            ),
            base.transform_filter("datum.kind == 'seed'")
            .mark_tick(size=7, thickness=1.2, color="#666666", yOffset=9)
            .encode(x=x),
            mean.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=colour, shape=shape),
        ]
        if any(row["task"] == task for row in papers):
            layers.append(
                base.transform_filter("datum.kind == 'published'")
                .mark_point(shape=charts.SAW, size=60, stroke="black", strokeWidth=1.5, yOffset=-9)
                .encode(x=x)
            )
        panels.append(
            alt.layer(*layers).properties(
                title=task, width=charts.panel_width(columns, each=8), height={"step": 34}
            )
        )
    title = "Score by task and method"
    marks = "Shapes: mean over seeds; lines: its 95% interval; grey ticks: single seeds"
    marks += "; crosses (×): published." if papers else "."
    n = _n(rows, "seed")
    return Figure(
        "scores",
        title,
        _sentences(
            f"The {report} evaluation of every run, by the main metric of each task, × 100; {n}.",
            "Filled shapes are means over seeds and lines their 95% bootstrap intervals"
            + (", which one seed does not have" if _has_gaps(rows, "low") else "")
            + "; grey ticks below are single seeds.",
            "Crosses above are the values that papers publish of the same task, metric and "
            f"method: {', '.join(dict.fromkeys(row['source'] for row in papers))}."
            if papers
            else "",
            "Axes do not begin at 0 and differ between tasks.",
            _missing(results),
        ),
        _sentence("Mean scores × 100 by task", _best_and_worst(rows, "value")),
        SCORE_UNIT,
        ["metrics/statistics.json", "metrics/runs"]
        + (["metrics/published.json"] if papers else []),
        means + seeds + papers,
        charts.grid(panels, means + seeds + papers, columns, title, f"{n}. {marks}"),
    )


def _parameters(results: Results) -> Figure | None:
    """Score against trained parameters, on a log axis."""
    rows = [
        row | {"parameters": results.cells[row["method"], row["task"]]["trainable"]["adapter"]}
        for row in _main_cells(results)
        if (row["method"], row["task"]) in results.cells
    ]
    if not rows:
        return None
    key = charts.methods_key(row["method"] for row in rows)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = charts.columns_of(len(tasks))
    counts = [row["parameters"] for row in rows]
    ends = [min(counts) / 2, max(counts) * 2]
    powers = [10**power for power in range(12) if ends[0] <= 10**power <= ends[1]]
    panels = []
    for task in tasks:
        metric = next(row["metric"] for row in rows if row["task"] == task)
        base = charts.scaled(alt.Chart(), 100, "value", "low", "high")
        base = base.transform_filter(f"datum.task == {task!r}").encode(
            x=alt.X(
                "parameters:Q",
                title="trained parameters",
                scale=alt.Scale(type="log", domain=ends, nice=False),
                axis=alt.Axis(values=powers or sorted(set(counts)), format="~s"),
            )
        )
        y = charts.axis_of("value_shown", f"{metric} × 100", nice=False)
        layers = [
            base.transform_filter("isValid(datum.low)")
            .mark_rule(strokeWidth=1.5)
            .encode(
                y=alt.Y(**charts.axis_of("low_shown", f"{metric} × 100", nice=False)),
                y2="high_shown:Q",
                color=key.colour,
            ),
            # Unfilled, for methods may coincide.
            base.mark_point(size=85, strokeWidth=2, opacity=1).encode(
                y=alt.Y(**y), color=key.colour, shape=key.shape
            ),
        ]
        panels.append(
            alt.layer(*layers).properties(
                title=task, width=charts.panel_width(columns, 0, 46), height=150
            )
        )
    title, n = "Score against trained parameters", _n(rows, "seed")
    spread = "lines: 95% intervals of the mean over seeds"
    smallest, largest = min(counts), max(counts)
    return Figure(
        "parameters",
        title,
        _sentences(
            f"The mean score over seeds × 100 ({n}) against the parameters that a method trains, "
            "the classification head left out, on a logarithmic axis.",
            "Lines are 95% bootstrap intervals of the mean. Methods that train equally many "
            "parameters to equal scores lie upon each other.",
            "Score axes do not begin at 0 and differ between tasks.",
            _missing(results),
        ),
        _sentence(
            f"Methods train from {smallest:,} to {largest:,} parameters; mean scores × 100",
            _best_and_worst(rows, "value"),
        ),
        f"score: {SCORE_UNIT}; parameters: number",
        SCORE_FILES,
        rows,
        charts.grid(panels, rows, columns, title, f"{n}; {spread}. Log axis, head left out."),
    )


def _curves(results: Results) -> Figure | None:
    """Learning curves: means with the range over seeds."""
    rows = [dict(row) for row in results.curves]
    if not rows:
        return None
    title, n = "Learning curves", _n(rows, "seed")
    last = {(row["task"], row["method"]): row for row in rows}
    return Figure(
        "curves",
        title,
        _sentences(
            f"The mean over seeds ({n}) of each task's main metric × 100 at every evaluation.",
            "Bands reach from the lowest to the highest seed: they are ranges, not intervals.",
            "Axes do not begin at 0 and differ between tasks.",
            _missing(results),
        ),
        _sentence(
            "Mean scores × 100 at the last evaluation by task",
            _best_and_worst(list(last.values()), "mean"),
        ),
        f"score: {SCORE_UNIT}; epoch: epochs",
        ["metrics/curves.json"],
        rows,
        _over_epochs(rows, "mean", True, title, f"{n}; lines: means; bands: minimum to maximum."),
    )


def _stability(results: Results) -> Figure | None:
    """Coefficients of variation over seeds at each evaluation."""
    rows = [dict(row) for row in results.stability if row["cv"] is not None]
    if not rows:
        return None
    title, n = "Stability: how much seeds differ", _n(rows, "seed")
    rows = [row | {"metric": "coefficient of variation"} for row in rows]
    last = {(row["task"], row["method"]): row for row in rows}
    undefined = len(results.stability) - len(rows)
    return Figure(
        "stability",
        title,
        _sentences(
            f"The coefficient of variation over seeds ({n}): their standard deviation over their "
            "mean score, in %, at every evaluation. Lower is steadier.",
            f"At {undefined} evaluations it is undefined, for want of a second seed or of a "
            "positive mean."
            if undefined
            else "",
            _missing(results),
        ),
        _sentence(
            "Coefficients of variation in % at the last evaluation by task",
            _best_and_worst(list(last.values()), "cv"),
        ),
        "fraction, shown in %",
        ["metrics/stability.json"],
        rows,
        _over_epochs(rows, "cv", False, title, f"{n}; standard deviation / mean, lower: steadier."),
    )


def _over_epochs(
    rows: list[dict[str, Any]],
    field: str,
    band: bool,
    title: str,
    subtitle: str,
    key: charts.Key | None = None,
) -> ConcatChart:
    """Return a panel per `task` of the rows with a line per method, or as `key` says, by epochs."""
    key = key or charts.methods_key(row["method"] for row in rows)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = charts.columns_of(len(tasks))
    panels = []
    for task in tasks:
        mine = [row for row in rows if row["task"] == task]
        epochs = sorted({row["epoch"] for row in mine})
        # Marks on every evaluation of a long run would hide its line.
        marked = epochs[:: max(1, -(-len(epochs) // 8))]
        unit = "%" if field == "cv" else "× 100"
        name = "CV" if field == "cv" else mine[0]["metric"]
        base = charts.scaled(alt.Chart(), 100, field, *(("low", "high") if band else ()))
        few = {"values": epochs} if len(epochs) <= 3 else {"tickCount": 4}
        base = base.transform_filter(f"datum.task == {task!r}").encode(
            x=alt.X(
                "epoch:Q",
                title="epochs",
                scale=alt.Scale(zero=False, nice=False, padding=8),
                axis=alt.Axis(**few, labelOverlap=True),
            )
        )
        highest = 108 * max(row[field] for row in mine)
        start: dict[str, Any] = {"domain": [0, highest], "padding": 0} if field == "cv" else {}
        start["nice"] = False
        y = alt.Y(**charts.axis_of(f"{field}_shown", f"{name}, {unit}", **start))
        layers = [
            base.mark_line(strokeWidth=1.8).encode(y=y, color=key.colour),
            base.transform_filter(alt.FieldOneOfPredicate("epoch", marked))
            .mark_point(size=34, strokeWidth=1.4, opacity=1)
            .encode(y=y, color=key.colour, shape=key.shape),
        ]
        if band:
            low = charts.axis_of("low_shown", f"{name}, {unit}", nice=False)
            area = base.mark_area(opacity=0.12, line=False)
            layers.insert(0, area.encode(y=alt.Y(**low), y2="high_shown:Q", color=key.colour))
        panels.append(
            alt.layer(*layers).properties(
                title=task, width=charts.panel_width(columns, 0, 46), height=150
            )
        )
    return charts.grid(panels, rows, columns, title, subtitle)


def _rank_weights(results: Results) -> Figure | None:
    """The sweep's medians as a table of ranks and weights (Hu et al. 2021, table 6)."""
    found = results.main_sweep
    if not found:
        return None
    columns = ("task", "metric", "weights", "rank", "median", "std", "n", "trainable_adapter")
    rows = [{column: row[column] for column in columns} for row in found]
    task, metric = rows[0]["task"], rows[0]["metric"]
    weights, ranks = _sweep_order(results, rows)
    missing = [
        f"{name} at rank {rank}"
        for name in weights
        for rank in ranks
        if not any((row["weights"], row["rank"]) == (name, rank) for row in rows)
    ]
    base = charts.scaled(alt.Chart(), 100, "median").encode(
        x=alt.X("rank:O", sort=ranks, title="rank r", axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y(
            "weights:N", sort=weights, title="weights", axis=alt.Axis(labelLimit=150, ticks=False)
        ),
    )
    pale = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0.0, 0.55]), zero=False)
    legend = alt.Legend(title=f"median {metric} × 100", orient="bottom", gradientLength=200)
    values = base.mark_text(dy=-6, fontSize=12).encode(
        text=alt.Text("median_shown:Q", format=".1f")
    )
    ns = base.mark_text(dy=9, fontSize=10, color="#222222").transform_calculate(
        counted="'n = ' + datum.n"
    )
    panel = alt.layer(
        base.mark_rect(stroke="white", strokeWidth=2).encode(
            color=alt.Color("median_shown:Q", scale=pale, legend=legend)
        ),
        values,
        ns.encode(text="counted:N"),
    ).properties(width=min(470, 84 * len(ranks)), height={"step": 40})
    title = f"LoRA at every rank with every set of weights: {task}"
    n = _n(rows, "seed")
    best, worst = (pick(rows, key=lambda row: row["median"]) for pick in (max, min))
    return Figure(
        "rank_weights",
        title,
        _sentences(
            f"The median {metric} × 100 over seeds of LoRA on {task}, by the rank and by the "
            f"weights that it adapts; each cell has its number of seeds ({n}).",
            "Darker is higher.",
            f"No results for: {', '.join(missing)}." if missing else "",
        ),
        f"Median {metric} × 100 on {task}: from {_percent(worst['median'])} with "
        f"{worst['weights']} at rank {worst['rank']} to {_percent(best['median'])} with "
        f"{best['weights']} at rank {best['rank']}.",
        SCORE_UNIT,
        ["metrics/sweep.json"],
        rows,
        charts.grid([panel], rows, 1, title, f"Median {metric} × 100; {n} in each cell."),
    )


def _rank_curves(results: Results) -> Figure | None:
    """The sweep's scores against the rank: medians and single seeds of each set of weights."""
    found = results.main_sweep
    weights, ranks = _sweep_order(results, found)
    if len({row["rank"] for row in found}) < 2:
        return None
    task, metric = found[0]["task"], found[0]["metric"]
    rows = []
    for row in found:
        same = {"task": task, "metric": metric, "weights": row["weights"], "rank": row["rank"]}
        rows.append({**same, "kind": "median", "seed": None, "n": row["n"], "value": row["median"]})
        cell = results.sweep_runs.get(f"{row['weights']}-r{row['rank']}", {"seeds": {}})
        for seed, run in cell["seeds"].items():
            value = run[cell["report"]][metric]
            rows.append({**same, "kind": "seed", "seed": int(seed), "n": None, "value": value})
    key = charts.other_key("weights", weights)
    base = charts.scaled(alt.Chart(), 100, "value").encode(
        x=alt.X(
            "rank:Q",
            title="rank r",
            scale=alt.Scale(type="log", base=2, nice=False, padding=12),
            axis=alt.Axis(values=ranks, format="d"),
        ),
        y=alt.Y(**charts.axis_of("value_shown", f"{metric} × 100")),
        color=key.colour,
    )
    medians = base.transform_filter("datum.kind == 'median'")
    panel = alt.layer(
        base.transform_filter("datum.kind == 'seed'").mark_point(
            shape="circle", filled=True, size=12, opacity=0.6
        ),
        medians.mark_line(strokeWidth=1.8),
        medians.mark_point(size=70, strokeWidth=1.8, opacity=1).encode(shape=key.shape),
    ).properties(width=charts.panel_width(1, 0, 50), height=260)
    title = f"Score against LoRA's rank: {task}"
    n = _n(found, "seed")
    best = max(found, key=lambda row: row["median"])
    return Figure(
        "rank_curves",
        title,
        _sentences(
            f"The {metric} × 100 of LoRA on {task} against its rank, by the weights that it "
            f"adapts. Shapes and lines are medians over seeds ({n}), dots are single seeds.",
            "Ranks stand on a logarithmic axis; that of the score does not begin at 0.",
        ),
        f"Over ranks {min(ranks)} to {max(ranks)} on {task}, the highest median {metric} × 100 is "
        f"{_percent(best['median'])}, with {best['weights']} at rank {best['rank']}.",
        SCORE_UNIT,
        ["metrics/sweep.json", "metrics/runs/sweep.json"],
        rows,
        charts.grid(
            [panel], rows, 1, title, f"{n}; shapes and lines: medians; dots: single seeds."
        ),
    )


def _rank_learning_curves(results: Results) -> Figure | None:
    """Learning curves of each rank, by the weights that LoRA adapts, beside full fine-tuning's."""
    if not results.sweep_curves:
        return None
    task, metric = results.sweep_curves[0]["task"], results.sweep_curves[0]["metric"]
    full = [row for row in results.curves if (row["task"], row["method"]) == (task, "full_ft")]
    rows, names = [], {}
    for row in results.sweep_curves:
        weights, _, rank = row["method"].rpartition("-r")
        names[int(rank)] = f"r = {rank}"
        rows.append(row | {"task": weights, "series": names[int(rank)]})
    for weights in dict.fromkeys(row["task"] for row in rows):
        rows += [row | {"task": weights, "series": METHOD_NAMES["full_ft"]} for row in full]
    series = [names[rank] for rank in sorted(names)] + [METHOD_NAMES["full_ft"]] * bool(full)
    title, n = f"Learning curves by LoRA's rank: {task}", _n(rows, "seed")
    best = max(results.sweep_curves, key=lambda row: row["mean"])
    return Figure(
        "rank_learning_curves",
        title,
        _sentences(
            f"The mean {metric} × 100 over seeds ({n}) on {task} at every evaluation, a line for "
            "each rank and a panel for each set of weights that LoRA adapts.",
            "The line of full fine-tuning is the same in every panel." if full else "",
            "Bands reach from the lowest to the highest seed: they are ranges, not intervals.",
        ),
        f"The highest mean {metric} × 100 of LoRA on {task} is {_percent(best['mean'])}, with "
        f"{best['method']} after {best['epoch']:g} epochs.",
        f"score: {SCORE_UNIT}; epoch: epochs",
        ["metrics/sweep_curves.json", *(["metrics/curves.json"] if full else [])],
        rows,
        _over_epochs(
            rows,
            "mean",
            True,
            title,
            f"{n}; lines: means; bands: minimum to maximum.",
            charts.other_key("series", series),
        ),
    )


def _step_time(results: Results) -> Figure | None:
    """Seconds of a training step by phase."""
    profile = results.profile
    if not profile.get("training"):
        return None
    rows: list[dict[str, Any]] = []
    for name, cell in profile["training"].items():
        seconds = cell["seconds"]
        spent = {phase: seconds[phase] for phase in ("forward", "backward", "optimiser")}
        spent["other"] = max(0.0, seconds["step"] - sum(spent.values()))
        same = {"cell": name, "label": _label(name, results.study)}
        none = dict.fromkeys(("ratio", "low", "high"))
        for order, (phase, value) in enumerate(spent.items()):
            rows.append({**same, "phase": phase, "order": order, "seconds": value, **none})
        rows.append({**same, "phase": "step", "order": None, "seconds": seconds["step"]})
        rows[-1] |= {"ratio": cell["ratio"]["median"], **_interval(cell["ratio"])}
    steps = [row for row in rows if row["phase"] == "step"]
    labels = _in_order(steps)
    reference = next((row["label"] for row in steps if row["ratio"] == 1.0), None)
    longest = 1000 * max(row["seconds"] for row in steps)
    stack = charts.Stack(
        field="seconds",
        factor=1000,
        title="milliseconds a step",
        end=1.5 * longest,
        labels=labels,
        series="phase",
        values=["forward", "backward", "optimiser", "other"],
        names=["F: forward", "B: backward", "O: optimiser", "(blank): rest"],
        letters=["F", "B", "O", ""],
        colours=[charts.SKY, charts.ORANGE, charts.GREEN, charts.GREY],
    )
    text = (
        charts.scaled(alt.Chart(), 1000, "seconds")
        .transform_filter("datum.phase == 'step'")
        .transform_calculate(
            text="format(datum.seconds_shown, '.0f') + ' ms' + (datum.ratio == 1 ? '' : '; ' + "
            "format(datum.ratio, '.2f') + (isValid(datum.low) ? ' (' + format(datum.low, '.2f') + "
            "' to ' + format(datum.high, '.2f') + ')' : ''))"
        )
        .mark_text(align="left", dx=5, fontSize=11)
        .encode(x="seconds_shown:Q", y=stack.y, text="text:N")
    )
    title = f"Time of a training step: {profile['task']}, batches of {profile['batch_size']}"
    n = f"n = {_rounds(profile)} steps each"
    against = "then the median ratio to " + (reference or "the reference") + " (95% interval)"
    least, most = (pick(steps, key=lambda row: row["seconds"]) for pick in (min, max))
    return Figure(
        "step_time",
        title,
        _sentences(
            f"Mean milliseconds of a training step ({n}, methods taking turns on the same "
            "batches), by what they were spent on, in the order of the legend.",
            f"Beside each bar: the whole step, {against}.",
            _machine(profile),
        ),
        f"A training step takes from {1000 * least['seconds']:.0f} ms ({least['label']}) to "
        f"{1000 * most['seconds']:.0f} ms ({most['label']}).",
        "s, shown in ms; ratio: none",
        ["metrics/profile.json"],
        rows,
        charts.grid(
            [charts.bars(*stack.layers(), text)],
            rows,
            1,
            title,
            f"{n}; bars: mean by phase; beside them the whole step, {against}.",
        ),
    )


def _memory(results: Results) -> Figure | None:
    """What training keeps in memory, by part, and the peak that was measured."""
    profile = results.profile
    if not profile.get("memory"):
        return None
    rows: list[dict[str, Any]] = []
    for name, cell in profile["memory"].items():
        parts = cell["parts"]
        same = {"cell": name, "label": _label(name, results.study)}
        turns = cell["explained"] < sum(parts.values())
        smaller = min(("gradients", "activations"), key=lambda part: parts[part])
        for order, part in enumerate(PARTS):
            drawn = not (turns and part == smaller)
            rows.append({**same, "part": part, "order": order if drawn else None})
            rows[-1]["bytes"] = parts[part]
        rows.append({**same, "part": "peak", "order": None, "bytes": cell["peak"]})
    peaks = [row for row in rows if row["part"] == "peak"]
    used = [p for p in PARTS if any(row["part"] == p and row["bytes"] for row in rows)]
    letters = {part: "LWOGAF"[number] for number, part in enumerate(PARTS)}
    stack = charts.Stack(
        field="bytes",
        factor=1e-6,
        title="MB (1 MB = 1,000,000 bytes)",
        end=1.25e-6 * max(row["bytes"] for row in peaks),
        labels=_in_order(peaks),
        series="part",
        values=used,
        names=[f"{letters[part]}: {PARTS[part]}" for part in used],
        letters=[letters[part] for part in used],
        colours=[PART_COLOURS[list(PARTS).index(part)] for part in used],
    )
    peak = charts.scaled(alt.Chart(), 1e-6, "bytes").transform_filter("datum.part == 'peak'")
    peak = peak.encode(x="bytes_shown:Q", y=stack.y)
    text = peak.transform_calculate(text="'peak ' + format(datum.bytes_shown, ',.0f') + ' MB'")
    title = f"Memory of training: {profile['task']}, batches of {profile['batch_size']}"
    n = "n = 1 process each"
    least, most = (pick(peaks, key=lambda row: row["bytes"]) for pick in (min, max))
    return Figure(
        "memory",
        title,
        _sentences(
            f"What training keeps in memory, in MB of 1,000,000 bytes, measured in a fresh process "
            f"({n}), stacked in the order of the legend; black marks are the measured peak.",
            "Of gradients and activations only the larger is drawn where one grows while the "
            "other shrinks.",
            _machine(profile),
        ),
        f"The measured peak lies between {least['bytes'] / 1e6:,.0f} MB ({least['label']}) and "
        f"{most['bytes'] / 1e6:,.0f} MB ({most['label']}).",
        "bytes, shown in MB (1 MB = 1,000,000 bytes)",
        ["metrics/profile.json"],
        rows,
        charts.grid(
            [
                charts.bars(
                    *stack.layers(),
                    peak.mark_tick(color="black", thickness=3, size=26, opacity=1),
                    text.mark_text(align="left", dx=6, fontSize=11).encode(text="text:N"),
                )
            ],
            rows,
            1,
            title,
            f"{n}; bars: parts; black marks: the peak that was measured.",
        ),
    )


def _latency(results: Results) -> Figure | None:
    """Latency of inference, as ratios to the base model."""
    profile = results.profile
    rows = [
        {"model": name, "label": _label(name, results.study), "batch": size}
        | {"n": cell[f"batch_{size}"]["n"], "ratio": cell[f"batch_{size}"]["ratio"]["median"]}
        | _interval(cell[f"batch_{size}"]["ratio"])
        | {"seconds": cell[f"batch_{size}"]["seconds"]["median"]}
        for name, cell in profile.get("inference", {}).items()
        if name != BASE
        for size in (1, 64)
    ]
    if not rows:
        return None
    labels = _in_order(rows)
    names = list(dict.fromkeys(row["model"].split()[0] for row in rows))
    key = charts.methods_key(names)
    rows = [row | {"method": row["model"].split()[0]} for row in rows]
    rows = [row | {"merged": row["model"].endswith(MERGED)} for row in rows]
    left = charts.BAR_LABELS
    panels = []
    for number, size in enumerate((1, 64)):
        x = charts.axis_of("ratio", "seconds, ratio to the base model")
        axis = alt.Axis(
            labels=number == 0,
            labelLimit=left,
            minExtent=0 if number else left,
            maxExtent=0 if number else left,
            ticks=False,
            domain=False,
            grid=True,
        )
        y = alt.Y("label:N", sort=labels, title=None, axis=axis)
        base = alt.Chart().transform_filter(f"datum.batch == {size}").encode(y=y)
        colour = key.bare_colour
        shape = key.bare_shape
        low = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
        point = base.encode(x=alt.X(**x), shape=shape, color=colour)
        layers = [
            alt.Chart().mark_rule(color="#555555", strokeDash=[4, 3]).encode(x=alt.datum(1)),
            low.encode(
                x=alt.X(**(x | {"shorthand": "low:Q"})),
                x2="high:Q",
                color=colour,
            ),
            point.transform_filter("!datum.merged").mark_point(filled=True, size=70, opacity=1),
            point.transform_filter("datum.merged").mark_point(fill="white", size=70, opacity=1),
        ]
        panels.append(
            alt.layer(*layers).properties(
                title=f"{size} example{'s' if size > 1 else ''} at a time",
                width=charts.panel_width(2, left),
                height={"step": 26},
            )
        )
    n = f"n = {_rounds(profile)} rounds"
    title = f"Latency of inference: {profile['task']}"
    widest = max(rows, key=lambda row: row["ratio"])
    narrowest = min(rows, key=lambda row: row["ratio"])
    clear = "; with fewer than six rounds there is none" if _has_gaps(rows, "low") else ""
    return Figure(
        "latency",
        title,
        _sentences(
            f"Seconds that an example takes, as a ratio to the base model in the same round ({n}).",
            f"Shapes are medians, lines their 95% intervals{clear}; the dashed line at 1 is the "
            "base model. Open shapes are merged into the base model.",
            "Axes do not begin at 0 and differ between batches.",
            _machine(profile),
        ),
        f"Median ratios to the base model's latency lie between {narrowest['ratio']:.2f} "
        f"({narrowest['label']}, batch of {narrowest['batch']}) and {widest['ratio']:.2f} "
        f"({widest['label']}, batch of {widest['batch']}).",
        "ratio to the base model; seconds: s",
        ["metrics/profile.json"],
        rows,
        charts.grid(
            panels,
            rows,
            2,
            title,
            f"{n}; shapes: medians; lines: 95% intervals; open shapes: merged.",
        ),
    )


def _equal_scores(results: Results) -> Figure | None:
    """Epochs, seconds and joules until each run first reaches its task's equal score."""
    runs = results.iso_accuracy.get("runs", [])
    if not runs:
        return None
    reached = [run for run in runs if run["reached"]]
    costs = [cost for cost in COSTS if any(run[cost] is not None for run in reached)] or ["epoch"]
    same = ("task", "method", "seed", "target", "reached")
    rows = [
        {field: run[field] for field in same} | {"cost": cost, "value": run[cost]}
        for cost in costs
        for run in runs
    ]
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    key = charts.methods_key(run["method"] for run in runs)
    columns = 4 if len(costs) == 2 and len(tasks) > 1 else len(costs)
    panels: list[Any] = []
    for task in tasks:
        mine = [run for run in runs if run["task"] == task]
        for cost in costs:
            base = alt.Chart().transform_filter(f"datum.task == {task!r} && datum.cost == {cost!r}")
            labelled = len(panels) % columns == 0
            base = base.encode(y=key.y(labelled=labelled))
            points = base.transform_filter("datum.reached").mark_point(
                filled=True, size=20, opacity=1
            )
            counts = base.transform_aggregate(
                hits="sum(reached)", runs="count()", groupby=["method"]
            ).transform_calculate(share="datum.hits + '/' + datum.runs")
            width = charts.panel_width(columns, each=26)
            spent = [run[cost] for run in mine if run[cost] is not None]
            most = max(spent, default=1.0)
            x = alt.X(
                "value:Q",
                title=COSTS[cost],
                scale=alt.Scale(domain=[0, 1.08 * most], nice=False),
                axis=alt.Axis(tickCount=3, format="~s"),
            )
            layers = [
                points.encode(
                    x=x,
                    yOffset=alt.YOffset("seed:O", scale=alt.Scale(paddingOuter=1.0)),
                    color=key.bare_colour,
                    shape=key.bare_shape,
                ),
                counts.mark_text(align="left", fontSize=10, color="#444444").encode(
                    x=alt.value(width + 5), text="share:N"
                ),
            ]
            target = f"to reach {_percent(mine[0]['target'])}"
            panels.append(
                alt.layer(*layers).properties(
                    title=alt.TitleParams(
                        task if cost == costs[0] else "",
                        subtitle=target if cost == costs[0] else "",
                        subtitleFontSize=11,
                    ),
                    width=width,
                    height=26 * len(key.values),
                )
            )
    title = "Cost of reaching an equal score"
    n = _n(
        [
            {"n": len([r for r in runs if (r["task"], r["method"]) == cell])}
            for cell in dict.fromkeys((run["task"], run["method"]) for run in runs)
        ],
        "seed",
    )
    never = [
        f"{METHOD_NAMES[method]} on {task} {len(failed)} of {len(own)}"
        for task in tasks
        for method in key.values
        if (own := [r for r in runs if (r["task"], r["method"]) == (task, method)])
        and (failed := [run for run in own if not run["reached"]])
    ]
    margin = 100 * results.iso_accuracy["margin"]
    source = results.iso_accuracy.get("energy", {}).get("source")
    return Figure(
        "equal_scores",
        title,
        _sentences(
            "What each run had spent when it first reached its task's target: the lower of the "
            "medians over seeds of the best scores of LoRA and full fine-tuning, minus "
            f"{margin:g} points. A shape is a seed ({n}); the numbers at the right count the runs "
            "that reached it.",
            "Seconds are the runs' own; on CPUs those of the processor.",
            f"Joules: {source}." if "joules" in costs else "Joules were not measured.",
            f"Runs that never reached it: {'; '.join(never)}." if never else "All runs reached it.",
            _missing(results),
        ),
        f"{len(reached)} of {len(runs)} runs reach the equal score of their task: "
        + ", ".join(
            f"{METHOD_NAMES[method]} {sum(r['method'] == method for r in reached)} of "
            f"{sum(r['method'] == method for r in runs)}"
            for method in key.values
        )
        + ".",
        "epoch: epochs; seconds: s; joules: J",
        ["metrics/iso_accuracy.json"],
        rows,
        charts.grid(
            panels, rows, columns, title, f"{n}; a shape: one seed; at the right: runs that reach."
        ),
    )


def _main_cells(results: Results) -> list[dict[str, Any]]:
    """Return the means of the evaluation that the study reports, by the main metrics."""
    main, report = results.study["main_metrics"], results.study["report"]
    fields = ("task", "method", "metric", "n", "low", "high")
    found = [
        {field: cell[field] for field in fields} | {"value": cell["mean"]}
        for cell in results.statistics.get("cells", [])
        if cell["evaluation"] == report and main.get(cell["task"]) == cell["metric"]
    ]
    tasks, methods = list(main), list(METHOD_NAMES)
    return sorted(found, key=lambda row: (tasks.index(row["task"]), methods.index(row["method"])))


def _sweep_order(results: Results, rows: list[dict[str, Any]]) -> tuple[list[str], list[int]]:
    """Return the sets of weights and the ranks of the sweep, planned ones without results too."""
    planned = results.study["sweep"]
    weights = dict.fromkeys([*planned["weights"], *(row["weights"] for row in rows)])
    return list(weights), sorted({*planned["ranks"], *(row["rank"] for row in rows)})


def _is_the_studys(row: dict[str, Any], adapters: dict[str, Any]) -> bool:
    """Tell whether a published row is of the study's own rank and weights, not of its sweep's."""
    adapter = adapters.get(row["method"], {})
    rank, targets = adapter.get("r", adapter.get("bottleneck")), adapter.get("targets")
    weights = set(re.findall(r"\w+", row["weights"] or ""))
    same_rank = row["rank"] is None or rank is None or int(row["rank"]) == rank
    return same_rank and (not weights or targets is None or weights == set(targets))


def _label(name: str, study: dict[str, Any]) -> str:
    """Return how a profiled model is shown: `lora r=64` as `LoRA (ours), r = 64`."""
    method, _, rank = name.removesuffix(MERGED).partition(" r=")
    rank = rank or str(study["adapters"].get(method, {}).get("r", ""))
    merged = ", merged" if name.endswith(MERGED) else ""
    return METHOD_NAMES[method] + (f", r = {rank}" if rank and not merged else merged)


def _in_order(rows: list[dict[str, Any]]) -> list[str]:
    """Return labels by method, then by rank, merged models last."""
    names = list(METHOD_NAMES.values())

    def place(label: str) -> tuple[int, int, bool]:
        name, _, rest = label.partition(", ")
        rank = re.search(r"\d+", rest)
        return names.index(name), int(rank[0]) if rank else 0, rest == "merged"

    merged = {row["label"] for row in rows if row["label"].endswith(", merged")}
    labels = sorted({row["label"] for row in rows} - merged, key=place)
    for label in merged:
        own = [o for o in labels if o.partition(", ")[0] == label.partition(", ")[0]]
        labels.insert(labels.index(own[-1]) + 1 if own else len(labels), label)
    return labels


def _interval(ratio: dict[str, Any]) -> dict[str, Any]:
    return {"low": ratio["low"], "high": ratio["high"]}


def _rounds(profile: dict[str, Any]) -> int:
    """Return the rounds of the profile, the same in training and inference."""
    return int(max(cell["batch_1"]["n"] for cell in profile["inference"].values()))


def _machine(profile: dict[str, Any]) -> str:
    machine = profile["machine"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    share = machine["other_cpu_share"]
    busy = f"; other programs used {share:.0%} of the processors" if share > 0.1 else ""
    return f"Measured on {where}{busy}."


def _n(rows: Iterable[dict[str, Any]], unit: str) -> str:
    """Return how many there are of each mean: `n = 5 seeds`, or `n = 3 to 5 seeds`."""
    counts = sorted({row["n"] for row in rows})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {span} {unit}{'' if span == '1' else 's'}"


def _has_gaps(rows: list[dict[str, Any]], field: str) -> bool:
    return any(row[field] is None for row in rows)


def _missing(results: Results) -> str:
    """Name the cells without results."""
    gaps = results.statistics.get("gaps", [])
    cells = ", ".join(f"{METHOD_NAMES[gap['method']]} on {gap['task']}" for gap in gaps)
    return f"No results for: {cells}." if gaps else ""


def _best_and_worst(rows: list[dict[str, Any]], field: str) -> str:
    """Return each task's highest and lowest value, times 100, and whose they are."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        high, low = (pick(mine, key=lambda row: row[field]) for pick in (max, min))
        text = f"{task} {_percent(high[field])} ({METHOD_NAMES[high['method']]})"
        if low["method"] != high["method"]:
            text += f" down to {_percent(low[field])} ({METHOD_NAMES[low['method']]})"
        found.append(text)
    return "; ".join(found)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _sentence(what: str, figures: str) -> str:
    return f"{what}: {figures}."


def _sentences(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
