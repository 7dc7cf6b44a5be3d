"""What a reproduction hangs on: the effect of each setting, and the gap to a published number."""

from typing import Any

import altair as alt

from peft_study.findings import wording
from peft_study.findings.figures import charts
from peft_study.findings.figures.figure import Figure, Row, row
from peft_study.findings.results import Results
from peft_study.records.study import StudyInfo
from peft_study.records.variants import Effect, Ledger, PublishedGap

MOST = 8  # panels; of more, those with a gap to a published number go first
KINDS = {"alone": (charts.BLUE, "circle"), "combined": (charts.VERMILION, "diamond")}


def ledger(results: Results, found: Ledger) -> Figure | None:
    """Return the effects of each method and task, the largest first; None if there are none."""
    study = results.study
    effects = [of for of in found.effects if of.mean is not None]
    gapped = {(gap.method, gap.task) for gap in found.gaps}
    cells = list(dict.fromkeys((of.method, of.task) for of in effects))
    shown = sorted(cells, key=lambda cell: cell not in gapped)[:MOST]
    if not shown:
        return None
    effects = [of for of in effects if (of.method, of.task) in shown]
    gaps = [of for of in found.gaps if (of.method, of.task) in shown]
    n = wording.counted((of.n for of in effects), "seed")
    columns = 1 if len(shown) == 1 else 2
    left = [
        f"{study.label(method)} on {task}" for method, task in cells if (method, task) not in shown
    ]
    slow = any(of.unlearned for of in effects)
    combined = any(of.kind != "alone" for of in effects)
    largest = max(effects, key=lambda of: abs(of.mean or 0.0))
    return Figure(
        "ledger",
        "What changes when settings do, from the study as it stands",
        f"{n}; circles: single settings{'; diamonds: several at once' if combined else ''}; lines: "
        f"95% intervals{'; dashes: the gap to what is published' if gaps else ''}.",
        wording.sentences(
            "The score with settings changed minus that of the study as it stands, in points of "
            f"each task's main metric, the largest change above; {n}, paired by seed and row.",
            "Lines are 95% intervals over seeds and held-out rows.",
            "Diamonds are several settings at once, on the half of the rows that did not choose "
            "them."
            if combined
            else "",
            _told(gaps, study),
            "Open shapes: the study or the variant has not learned, so that the effect ends at the "
            "baseline."
            if slow
            else "",
            f"Not shown here, but in the table: {', '.join(left)}." if left else "",
            "Axes differ between panels.",
        ),
        f"The largest change is {wording.points(largest.mean or 0.0)} points, of "
        f"{' + '.join(largest.settings)} with {study.label(largest.method)} on {largest.task}.",
        "difference of fractions, shown × 100",
        ["metrics/ledger.json"],
        [*map(_effect, effects), *map(_gap, gaps)],
        [_panel(cell, effects, gaps, columns, study) for cell in shown],
        columns=columns,
    )


def _panel(
    cell: tuple[str, str],
    effects: list[Effect],
    gaps: list[PublishedGap],
    columns: int,
    study: StudyInfo,
) -> alt.LayerChart:
    method, task = cell
    mine = [of for of in effects if (of.method, of.task) == cell]
    labels = [_label(of) for of in sorted(mine, key=lambda of: -abs(of.mean or 0.0))]
    title = f"points of {mine[0].metric}"
    base = charts.scaled(100, "value", "low", "high").transform_filter(
        f"datum.method == {method!r} && datum.task == {task!r}"
    )
    drawn = base.transform_filter("datum.kind != 'gap'").encode(
        y=charts.series_key("label", labels).y(width=charts.BAR_LABELS, order=labels)
    )
    x = charts.x_of("value_shown", title)
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}]))
    layers = [zero.mark_rule(color="#666666").encode(x=charts.x_of("zero", title))]
    if any((of.method, of.task) == cell for of in gaps):
        lines = base.transform_filter("datum.kind == 'gap'")
        layers.append(lines.mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(x=x))
    for kind, (colour, shape) in KINDS.items():
        for learned in (True, False):
            if not any((_kind(of), not of.unlearned) == (kind, learned) for of in mine):
                continue
            points = drawn.transform_filter(f"datum.kind == {kind!r}")
            points = points.transform_filter(f"datum.learned == {str(learned).lower()}")
            if any(of.low is not None and _kind(of) == kind for of in mine):
                ends = points.transform_filter("isValid(datum.low)")
                ends = ends.mark_rule(strokeWidth=2, color=colour)
                layers.append(ends.encode(x=charts.x_of("low_shown", title), x2="high_shown:Q"))
            about: dict[str, Any] = {"shape": shape, "size": 70, "opacity": 1, "color": colour}
            layers.append(points.mark_point(filled=learned, **about).encode(x=x))
    width = charts.panel_width(columns, 0, charts.BAR_LABELS + 4)
    name = f"{study.label(method)} on {task}"
    return alt.LayerChart(layer=layers, title=name, width=width, height={"step": 26})


def _told(gaps: list[PublishedGap], study: StudyInfo) -> str:
    told = (
        f"{study.label(gap.method)} on {gap.task} {wording.points(gap.gap)} ({gap.citation})"
        for gap in gaps
    )
    words = "Dashed lines are published results minus this study, in scores as papers report them"
    return f"{words}: {'; '.join(told)}." if gaps else ""


def _label(of: Effect) -> str:
    return " + ".join(of.settings)


def _kind(of: Effect) -> str:
    return "alone" if of.kind == "alone" else "combined"


def _effect(of: Effect) -> Row:
    about = row(method=of.method, task=of.task, metric=of.metric, kind=_kind(of), label=_label(of))
    tests = row(n=of.n, p_holm=of.p_holm, learned=not of.unlearned)
    return about | row(value=of.mean, low=of.low, high=of.high) | tests


def _gap(gap: PublishedGap) -> Row:
    about = row(method=gap.method, task=gap.task, metric=gap.metric, kind="gap", label=gap.citation)
    tests = row(n=gap.n, p_holm=None, learned=True)
    return about | row(value=gap.gap, low=gap.low, high=gap.high) | tests
