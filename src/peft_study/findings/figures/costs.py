"""What every method costs on the tasks of the profile: time, memory, latency."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.wording import recipe_label
from peft_study.records.costs import (
    Amount,
    InferenceCost,
    Latency,
    MemoryCost,
    Profile,
    Recipe,
    StepCost,
    TaskProfile,
)
from peft_study.records.study import StudyInfo

PHASES = {  # of a step, with their looks: see `charts.stacked`
    "forward": ("F", "forward", charts.SKY),
    "backward": ("B", "backward", charts.ORANGE),
    "optimiser": ("O", "optimiser", charts.GREEN),
    "other": ("", "rest", charts.GREY),
}
PARTS = {  # of memory
    "libraries": ("L", "Python and libraries", charts.GREY),
    "weights": ("W", "weights", charts.SKY),
    "optimiser_state": ("O", "optimiser state", charts.GREEN),
    "gradients": ("G", "gradients", charts.ORANGE),
    "activations": ("A", "activations", charts.PURPLE),
    "allocator": ("F", "freed, held by the allocator", charts.YELLOW),
}
TITLES = {"seconds": "milliseconds a step", "bytes": "MB (1 MB = 1,000,000 bytes)"}  # as shown
KINDS = {"one_by_one": "1 example at a time", "validation_set": "validation set"}
COPY = "base model, a second copy"
SOURCES = ["metrics/profile.json"]


def step_time(profile: Profile, study: StudyInfo) -> Figure:
    """Return the seconds of a training step by phase."""
    cells = [(costs, cell) for costs in profile.tasks for cell in costs.training]
    rows: list[Row] = []
    for costs, cell in cells:
        spent, ratio = asdict(cell.seconds), cell.ratio
        whole = spent.pop("step")
        spent["other"] = max(0.0, whole - sum(spent.values()))
        batch = costs.batches[str(cell.recipe.method)]
        model = _model(cell.recipe, study) | row(task=costs.task, batch=batch.rows)
        same = model | row(ratio=None, low=None, high=None)
        rows += [same | row(phase=p, order=o, seconds=s) for o, (p, s) in enumerate(spent.items())]
        same |= row(ratio=ratio.value, low=ratio.low, high=ratio.high)
        rows.append(same | row(phase="step", order=None, seconds=whole))
    ends = [pick(cells, key=lambda found: found[1].seconds.step) for pick in (min, max)]
    low, high = (
        f"{1000 * cell.seconds.step:.0f} ms ({recipe_label(cell.recipe, study)})"
        for _, cell in ends
    )
    references = [recipe_label(c.recipe, study) for _, c in cells if c.ratio.value == 1.0]
    text = charts.scaled(1000, "seconds").transform_filter("datum.phase == 'step'")
    text = text.encode(x="seconds_shown:Q", text="text:N").transform_calculate(
        text="format(datum.seconds_shown, '.0f') + ' ms' + (datum.ratio == 1 ? '' : '; ' + "
        "format(datum.ratio, '.2f') + (isValid(datum.low) ? ' (' + format(datum.low, '.2f') + "
        "' to ' + format(datum.high, '.2f') + ')' : ''))"
    )
    text = text.mark_text(align="left", dx=5, fontSize=11)
    end, looks = 1500 * ends[1][1].seconds.step, (PHASES, text)
    n = f"n = {max(cell.n for _, cell in cells)} steps each"
    against = f"then an epoch's median ratio to {[*references, 'the reference'][0]} (95% interval)"
    return Figure(
        "step_time",
        f"Time of a training step: {_where(profile, study)}",
        f"{n}; bars: mean by phase; beside them the whole step, {against}.",
        wording.sentences(
            f"Mean milliseconds of a training step ({n}, methods taking turns, with one batch size "
            "on the same batches), by what they were spent on, in the order of the legend.",
            f"Beside each bar: the whole step, {against}.",
            wording.machine_words(profile.machine),
        ),
        f"A training step takes from {low} to {high}.",
        "s, shown in ms; ratio: none",
        SOURCES,
        rows,
        [
            _panel(profile, costs, study, costs.training, "seconds", 1000, end, "phase", *looks)
            for costs in profile.tasks
        ],
        columns=1,
    )


def memory(profile: Profile, study: StudyInfo) -> Figure:
    """Return what training keeps in memory, by part, and the peak that was measured."""
    cells = [(costs, cell) for costs in profile.tasks for cell in costs.memory]
    rows: list[Row] = []
    for costs, cell in cells:
        same, parts = _model(cell.recipe, study) | row(task=costs.task), asdict(cell.parts)
        smaller = "gradients" if parts["gradients"] <= parts["activations"] else "activations"
        hidden = smaller if cell.explained < sum(parts.values()) else None
        for order, part in enumerate(PARTS):
            place = None if part == hidden else order
            rows.append(same | row(part=part, order=place, bytes=parts[part]))
        peak = _peak(profile, cell)
        spread = row(low=peak.low, high=peak.high)
        rows.append(same | row(part="peak", order=None, bytes=peak.bytes) | spread)
    ends = [pick(cells, key=lambda found: _peak(profile, found[1]).bytes) for pick in (min, max)]
    low, high = (
        f"{_peak(profile, cell).bytes / 1e6:,.0f} MB ({recipe_label(cell.recipe, study)})"
        for _, cell in ends
    )
    used = {found["part"] for found in rows if found["bytes"]}
    looks = {part: look for part, look in PARTS.items() if part in used}
    peaks = charts.scaled(1e-6, "bytes").transform_filter("datum.part == 'peak'")
    peaks = peaks.encode(x="bytes_shown:Q")
    mark = peaks.mark_tick(color="black", thickness=3, size=26, opacity=1)
    text = peaks.transform_calculate(text="'peak ' + format(datum.bytes_shown, ',.0f') + ' MB'")
    text = text.mark_text(align="left", dx=6, fontSize=11).encode(text="text:N")
    end = 1.25e-6 * _peak(profile, ends[1][1]).bytes
    n = f"n = {max(cell.n for _, cell in cells)} processes each"
    counted = "what PyTorch has allocated" if profile.machine.gpu else "the resident set"
    return Figure(
        "memory",
        f"Memory of training: {_where(profile, study)}",
        f"{n}; bars: parts; black marks: the peak of {counted}, as measured.",
        wording.sentences(
            f"What training keeps in memory, in MB of 1,000,000 bytes, means of fresh processes "
            f"({n}), stacked in the order of the legend; black marks are the peak of {counted}, as "
            "measured.",
            "Of gradients and activations only the larger is drawn where one grows while the "
            "other shrinks.",
            wording.machine_words(profile.machine),
        ),
        f"The measured peak lies between {low} and {high}.",
        "bytes, shown in MB (1 MB = 1,000,000 bytes)",
        SOURCES,
        rows,
        [
            _panel(
                *(profile, costs, study, costs.memory, "bytes", 1e-6, end, "part", looks),
                *(mark, text),
            )
            for costs in profile.tasks
        ],
        columns=1,
    )


def latency(profile: Profile, study: StudyInfo) -> Figure:
    """Return the latency of inference, as ratios to the base model, which is not drawn."""
    cells = [(c, cell) for c in profile.tasks for cell in c.inference if cell.recipe.method]
    measured = [
        (costs, cell.recipe, kind, timed)
        for costs, cell in cells
        for kind, timed in _kinds(cell).items()
    ]
    labels = _labels((cell.recipe for _, cell in cells), study)
    key = charts.methods_key((str(cell.recipe.method) for _, cell in cells), study)
    panels = [
        _latency_panel(profile, costs, kind, labels, key)
        for costs in profile.tasks
        for kind in KINDS
    ]
    n = wording.counted((timed.n for *_, timed in measured), "round")
    ends = [pick(measured, key=lambda found: found[3].ratio.value) for pick in (min, max)]
    low, high = (
        f"{wording.two_digits(timed.ratio.value)} ({recipe_label(recipe, study)}, {KINDS[kind]})"
        for _, recipe, kind, timed in ends
    )
    few = any(timed.ratio.low is None for *_, timed in measured)
    clear = "; with fewer than six rounds there is none" if few else ""
    copies = [
        (costs, kind, t) for costs in profile.tasks for kind, t in _kinds(costs.second_copy).items()
    ]
    return Figure(
        "latency",
        f"Latency of inference: {', '.join(costs.task for costs in profile.tasks)}",
        f"{n}; shapes: medians; lines: 95% intervals; open shapes: merged; grey: two copies of one "
        "model.",
        wording.sentences(
            "Seconds that inference takes, one example at a time and for the validation set in "
            f"batches of 64, as a ratio to the base model in the same round ({n}).",
            f"Shapes are medians, lines their 95% intervals{clear}; the dashed line at 1 is the "
            "base model, and so is full fine-tuning. Open shapes are merged into the base model. "
            "The grey band is the interval of a second copy of the base model: what lies within it "
            "cannot be told from the base model.",
            "Axes do not begin at 0 and differ between panels.",
            wording.machine_words(profile.machine),
        ),
        f"Median ratios to the base model's latency lie between {low} and {high}.",
        "ratio to the base model; seconds: s",
        SOURCES,
        [
            _model(recipe, study) | row(task=costs.task, kind=kind) | _timed(timed)
            for costs, recipe, kind, timed in measured
        ]
        + [
            _model(Recipe(), study) | row(task=costs.task, kind=kind, label=COPY) | _timed(timed)
            for costs, kind, timed in copies
        ],
        panels,
        columns=2,
    )


def _latency_panel(
    profile: Profile, costs: TaskProfile, kind: str, labels: list[str], key: charts.Key
) -> alt.LayerChart:
    """Return one latency on one task, and within what two copies of one model lie."""
    first = kind == next(iter(KINDS))
    y = charts.series_key("label", labels).y(labelled=first, width=charts.BAR_LABELS)
    here = alt.Chart().transform_filter(f"datum.kind == {kind!r} && datum.task == {costs.task!r}")
    copies = here.transform_filter(f"datum.label == {COPY!r} && isValid(datum.low)")
    base = here.transform_filter(f"datum.label != {COPY!r}")
    base = base.encode(y=y, color=key.colour(legend=False))
    title = "seconds, ratio to the base model"
    point = base.encode(x=charts.x_of("ratio", title), shape=key.shape(legend=False))
    spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    layers = [
        copies.mark_rect(color="#DDDDDD").encode(x=charts.x_of("low", title), x2="high:Q"),
        alt.Chart().mark_rule(color="#555555", strokeDash=[4, 3]).encode(x=alt.datum(1)),
        spread.encode(x=charts.x_of("low", title), x2="high:Q"),
        point.transform_filter("!datum.merged").mark_point(filled=True, size=70, opacity=1),
        point.transform_filter("datum.merged").mark_point(fill="white", size=70, opacity=1),
    ]
    name = f"{costs.task}: {KINDS[kind]}" if len(profile.tasks) > 1 else KINDS[kind]
    width = charts.panel_width(2, charts.BAR_LABELS)
    return alt.LayerChart(layer=layers, title=name, width=width, height=26 * len(labels))


def _panel(
    profile: Profile,
    costs: TaskProfile,
    study: StudyInfo,
    cells: Sequence[StepCost] | Sequence[MemoryCost],
    field: str,
    factor: float,
    end: float,
    series: str,
    looks: charts.Looks,
    *beside: alt.Chart,
) -> alt.LayerChart:
    """Return one task's bars, headed by the task where there are several."""
    labels = _labels((cell.recipe for cell in cells), study)
    panel = charts.stacked(
        field, factor, TITLES[field], end, labels, series, looks, *beside
    ).transform_filter(f"datum.task == {costs.task!r}")
    return panel.properties(title=costs.task) if len(profile.tasks) > 1 else panel


def _kinds(cell: InferenceCost) -> dict[str, Latency]:
    return {kind: getattr(cell, kind) for kind in KINDS}


def _timed(timed: Latency) -> Row:
    ratio = timed.ratio
    found = row(n=timed.n, seconds=timed.seconds.median, ratio=ratio.value)
    return found | row(low=ratio.low, high=ratio.high)


def _peak(profile: Profile, cell: MemoryCost) -> Amount:
    """Return the peak that a cell's parts explain."""
    return (cell.beyond_libraries if profile.machine.gpu else cell.as_measured).peak


def _where(profile: Profile, study: StudyInfo) -> str:
    """Say on which tasks it was measured, and in which batches."""
    tasks: dict[str, list[str]] = {}
    for costs in profile.tasks:
        tasks.setdefault(wording.batches_of(costs.batches, study), []).append(costs.task)
    return "; ".join(f"{', '.join(names)}, {batches}" for batches, names in tasks.items())


def _model(recipe: Recipe, study: StudyInfo) -> Row:
    """Return the fields that say which model a row is of."""
    return asdict(recipe) | row(label=recipe_label(recipe, study), weights="+".join(recipe.weights))


def _labels(recipes: Iterable[Recipe], study: StudyInfo) -> list[str]:
    """Return the models' labels by method, each unmerged before merged, then by rank."""
    # A study of a sweep alone has no methods, but the profile measures LoRA.
    methods = [*study.labels, *study.known_labels]
    found = sorted(recipes, key=lambda r: (methods.index(str(r.method)), r.merged, r.rank or 0))
    return list(dict.fromkeys(recipe_label(recipe, study) for recipe in found))
