"""What every method costs on the task of the profile: time, memory, latency."""

from collections.abc import Iterable
from dataclasses import asdict

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.wording import recipe_label
from peft_study.records.costs import InferenceCost, Profile, Recipe
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
SOURCES = ["metrics/profile.json"]


def step_time(profile: Profile, study: StudyInfo) -> Figure:
    """Return the seconds of a training step by phase."""
    rows: list[Row] = []
    for cell in profile.training:
        spent, ratio = asdict(cell.seconds), cell.ratio
        whole = spent.pop("step")
        spent["other"] = max(0.0, whole - sum(spent.values()))
        same = _model(cell.recipe, study) | row(ratio=None, low=None, high=None)
        rows += [same | row(phase=p, order=o, seconds=s) for o, (p, s) in enumerate(spent.items())]
        same |= row(ratio=ratio.median, low=ratio.low, high=ratio.high)
        rows.append(same | row(phase="step", order=None, seconds=whole))
    ends = [pick(profile.training, key=lambda cell: cell.seconds.step) for pick in (min, max)]
    low, high = (f"{1000 * c.seconds.step:.0f} ms ({recipe_label(c.recipe, study)})" for c in ends)
    references = [recipe_label(c.recipe, study) for c in profile.training if c.ratio.median == 1.0]
    text = charts.scaled(1000, "seconds").transform_filter("datum.phase == 'step'")
    text = text.encode(x="seconds_shown:Q", text="text:N").transform_calculate(
        text="format(datum.seconds_shown, '.0f') + ' ms' + (datum.ratio == 1 ? '' : '; ' + "
        "format(datum.ratio, '.2f') + (isValid(datum.low) ? ' (' + format(datum.low, '.2f') + "
        "' to ' + format(datum.high, '.2f') + ')' : ''))"
    )
    text = text.mark_text(align="left", dx=5, fontSize=11)
    labels = _labels((cell.recipe for cell in profile.training), study)
    title, end = "milliseconds a step", 1500 * ends[1].seconds.step
    panel = charts.stacked("seconds", 1000, title, end, labels, "phase", PHASES, text)
    # Rounds are the same in training and inference.
    n = f"n = {max(cell.batch_1.n for cell in profile.inference)} steps each"
    against = f"then the median ratio to {[*references, 'the reference'][0]} (95% interval)"
    return Figure(
        "step_time",
        f"Time of a training step: {profile.task}, batches of {profile.batch_size}",
        f"{n}; bars: mean by phase; beside them the whole step, {against}.",
        wording.sentences(
            f"Mean milliseconds of a training step ({n}, methods taking turns on the same "
            "batches), by what they were spent on, in the order of the legend.",
            f"Beside each bar: the whole step, {against}.",
            wording.machine_words(profile.machine),
        ),
        f"A training step takes from {low} to {high}.",
        "s, shown in ms; ratio: none",
        SOURCES,
        rows,
        [panel],
    )


def memory(profile: Profile, study: StudyInfo) -> Figure:
    """Return what training keeps in memory, by part, and the peak that was measured."""
    rows: list[Row] = []
    for cell in profile.memory:
        same, parts = _model(cell.recipe, study), asdict(cell.parts)
        smaller = "gradients" if parts["gradients"] <= parts["activations"] else "activations"
        hidden = smaller if cell.explained < sum(parts.values()) else None
        for order, part in enumerate(PARTS):
            place = None if part == hidden else order
            rows.append(same | row(part=part, order=place, bytes=parts[part]))
        rows.append(same | row(part="peak", order=None, bytes=cell.peak))
    ends = [pick(profile.memory, key=lambda cell: cell.peak) for pick in (min, max)]
    low, high = (f"{c.peak / 1e6:,.0f} MB ({recipe_label(c.recipe, study)})" for c in ends)
    labels = _labels((cell.recipe for cell in profile.memory), study)
    used = {found["part"] for found in rows if found["bytes"]}
    looks = {part: look for part, look in PARTS.items() if part in used}
    peak = charts.scaled(1e-6, "bytes").transform_filter("datum.part == 'peak'")
    peak = peak.encode(x="bytes_shown:Q")
    mark = peak.mark_tick(color="black", thickness=3, size=26, opacity=1)
    text = peak.transform_calculate(text="'peak ' + format(datum.bytes_shown, ',.0f') + ' MB'")
    text = text.mark_text(align="left", dx=6, fontSize=11).encode(text="text:N")
    title, end = "MB (1 MB = 1,000,000 bytes)", 1.25e-6 * ends[1].peak
    panel = charts.stacked("bytes", 1e-6, title, end, labels, "part", looks, mark, text)
    n = "n = 1 process each"
    return Figure(
        "memory",
        f"Memory of training: {profile.task}, batches of {profile.batch_size}",
        f"{n}; bars: parts; black marks: the peak that was measured.",
        wording.sentences(
            f"What training keeps in memory, in MB of 1,000,000 bytes, measured in a fresh process "
            f"({n}), stacked in the order of the legend; black marks are the measured peak.",
            "Of gradients and activations only the larger is drawn where one grows while the "
            "other shrinks.",
            wording.machine_words(profile.machine),
        ),
        f"The measured peak lies between {low} and {high}.",
        "bytes, shown in MB (1 MB = 1,000,000 bytes)",
        SOURCES,
        rows,
        [panel],
    )


def latency(profile: Profile, cells: list[InferenceCost], study: StudyInfo) -> Figure:
    """Return the latency of inference, as ratios to the base model, which is none of `cells`."""
    batches = [(cell.recipe, {1: cell.batch_1, 64: cell.batch_64}) for cell in cells]
    measured = [(recipe, size, timed) for recipe, both in batches for size, timed in both.items()]
    labels = _labels((cell.recipe for cell in cells), study)
    key = charts.methods_key((str(cell.recipe.method) for cell in cells), study)
    panels = []
    for size in (1, 64):
        y = charts.series_key("label", labels).y(labelled=size == 1, width=charts.BAR_LABELS)
        base = alt.Chart().transform_filter(f"datum.batch == {size}")
        base = base.encode(y=y, color=key.colour(legend=False))
        title = "seconds, ratio to the base model"
        point = base.encode(x=charts.x_of("ratio", title), shape=key.shape(legend=False))
        spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
        layers = [
            alt.Chart().mark_rule(color="#555555", strokeDash=[4, 3]).encode(x=alt.datum(1)),
            spread.encode(x=charts.x_of("low", title), x2="high:Q"),
            point.transform_filter("!datum.merged").mark_point(filled=True, size=70, opacity=1),
            point.transform_filter("datum.merged").mark_point(fill="white", size=70, opacity=1),
        ]
        name = f"{size} example{'s' if size > 1 else ''} at a time"
        width = charts.panel_width(2, charts.BAR_LABELS)
        panels.append(alt.LayerChart(layer=layers, title=name, width=width, height={"step": 26}))
    n = f"n = {max(cell.batch_1.n for cell in profile.inference)} rounds"
    ends = [pick(measured, key=lambda found: found[2].ratio.median) for pick in (min, max)]
    low, high = (
        f"{wording.two_digits(timed.ratio.median)} ({recipe_label(recipe, study)}, batch of {size})"
        for recipe, size, timed in ends
    )
    few = any(timed.ratio.low is None for _, _, timed in measured)
    clear = "; with fewer than six rounds there is none" if few else ""
    return Figure(
        "latency",
        f"Latency of inference: {profile.task}",
        f"{n}; shapes: medians; lines: 95% intervals; open shapes: merged.",
        wording.sentences(
            f"Seconds that an example takes, as a ratio to the base model in the same round ({n}).",
            f"Shapes are medians, lines their 95% intervals{clear}; the dashed line at 1 is the "
            "base model. Open shapes are merged into the base model.",
            "Axes do not begin at 0 and differ between batches.",
            wording.machine_words(profile.machine),
        ),
        f"Median ratios to the base model's latency lie between {low} and {high}.",
        "ratio to the base model; seconds: s",
        SOURCES,
        [
            _model(recipe, study)
            | row(batch=size, n=timed.n, seconds=timed.seconds.median, ratio=timed.ratio.median)
            | row(low=timed.ratio.low, high=timed.ratio.high)
            for recipe, size, timed in measured
        ],
        panels,
    )


def _model(recipe: Recipe, study: StudyInfo) -> Row:
    """Return the fields that say which model a row is of."""
    return asdict(recipe) | row(label=recipe_label(recipe, study), weights="+".join(recipe.weights))


def _labels(recipes: Iterable[Recipe], study: StudyInfo) -> list[str]:
    """Return the models' labels by method, each unmerged before merged, then by rank."""
    methods = list(study.labels)
    found = sorted(recipes, key=lambda r: (methods.index(str(r.method)), r.merged, r.rank or 0))
    return list(dict.fromkeys(recipe_label(recipe, study) for recipe in found))
