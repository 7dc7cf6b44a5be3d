"""How the figures look: the marks of every method, panels of one size, titles with their n."""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import altair as alt

from peft_study.methods import METHODS
from peft_study.records import Record
from peft_study.records.study import StudyInfo

WIDTH = 680  # px, of a whole figure
LABELS = 110  # px, for the names left of a figure's first column
BAR_LABELS = 160  # px, for longer ones
SPACING = 14  # px, between panels
MANY = 6  # series, beyond which panels get wider, and bands would hide lines
MARGIN = 36  # px, of a figure's padding and of labels that stand beyond their axis

# Okabe and Ito's colours, which all readers tell apart, their yellow darkened for white paper, and
# two more. Shapes say the same without colour.
BLUE, VERMILION, PURPLE, GREEN, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#000000"
SKY, ORANGE, YELLOW, GREY = "#56B4E9", "#E69F00", "#F0E442", "#BBBBBB"
FAMILY_COLOURS = {
    **{"lora": BLUE, "adapter": VERMILION, "full": BLACK, "selective": GREEN, "scaling": ORANGE},
    **{"orthogonal": PURPLE, "spectral": SKY, "representation": "#7F7F7F", "prefix": "#B8A800"},
    "other": "#8C564B",
}
SERIES_COLOURS = (BLUE, VERMILION, GREEN, BLACK, PURPLE, ORANGE, SKY)
_STAR = "M0,-1.2L.31,-.37L1.14,-.37L.47,.14L.71,.97L0,.46L-.71,.97L-.47,.14L-1.14,-.37L-.31,-.37Z"
_HOURGLASS, _BOW = "M-.9,-1L.9,-1L-.9,1L.9,1Z", "M-1,-.9L1,.9L1,-.9L-1,.9Z"
_TALL, _ELL = "M-.4,-1.1L.4,-1.1L.4,1.1L-.4,1.1Z", "M-1,-1L-.1,-1L-.1,.1L1,.1L1,1L-1,1Z"
_SPARK = "M0,-1.3L.3,-.3L1.3,0L.3,.3L0,1.3L-.3,.3L-1.3,0L-.3,-.3Z"
_ARROW = "M0,-1.2L1,0L.4,0L.4,1.1L-.4,1.1L-.4,0L-1,0Z"
_CHEVRON = "M-1.1,-.8L0,.1L1.1,-.8L1.1,.2L0,1.1L-1.1,.2Z"
# By place of the methods of the table, then for recipes.
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"),
    *("triangle-left", _STAR, _HOURGLASS, _BOW, _TALL, _SPARK, _ELL, _ARROW, _CHEVRON),
)
DASHES = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3], [4, 1])  # of lines, by member of a family
SAW = "M-1,-1L1,1M-1,1L1,-1"  # a saltire, which no method has
Looks = dict[str, tuple[str, str, str]]  # by name: a segment's letter, its words, its colour

TICKS = alt.Axis(tickCount=4, labelOverlap=True, labelFlush=False)
FITTED = alt.Scale(zero=False, nice=False, padding=6)
NICE = alt.Scale(zero=False, nice=True, padding=6)


class Key(Record):
    """What tells a figure's series apart: the field, the names of its values in order, marks."""

    field: str
    names: dict[str, str]
    colours: list[str]
    shapes: list[str]
    dashes: list[list[int]]

    def colour(self, *, legend: bool = True) -> alt.Color:
        """Colour by series; without a legend where the rows are labelled."""
        scale = alt.Scale(domain=list(self.names), range=self.colours)
        return alt.Color(f"{self.field}:N", scale=scale, legend=self._legend() if legend else None)

    def fill(self) -> alt.Fill:
        """Fill by series; joins the legend of the colours."""
        scale = alt.Scale(domain=list(self.names), range=self.colours)
        return alt.Fill(f"{self.field}:N", scale=scale, legend=self._legend())

    def shape(self, *, legend: bool = True) -> alt.Shape:
        """Shape by series; joins the legend of the colours."""
        scale = alt.Scale(domain=list(self.names), range=self.shapes)
        return alt.Shape(f"{self.field}:N", scale=scale, legend=self._legend() if legend else None)

    def dashed(self, lines: alt.Chart) -> alt.Chart:
        """Dash lines by series, by a field of their own: the legend shows shapes alone."""
        numbers = {
            name: str(DASHES.index(dash))
            for name, dash in zip(self.names, self.dashes, strict=True)
        }
        lines = lines.transform_calculate(dash=_expression(numbers, self.field))
        scale = alt.Scale(domain=[*map(str, range(len(DASHES)))], range=list(DASHES))
        return lines.encode(strokeDash=alt.StrokeDash("dash:N", scale=scale, legend=None))

    def y(
        self, *, labelled: bool = True, width: int = LABELS, order: list[str] | None = None
    ) -> alt.Y:
        """Return rows by series, labels `width` px wide in a figure's first column."""
        axis = _axis_of(self.names, width)
        axis.labels, axis.grid = labelled, True
        if not labelled:
            axis.minExtent = axis.maxExtent = 0
        values = order or list(self.names)
        scale = alt.Scale(domain=values)
        return alt.Y(f"{self.field}:N", sort=values, scale=scale, axis=axis, title=None)

    def _legend(self) -> alt.Legend:
        legend = _legend_of(self.names)
        legend.symbolStrokeWidth, legend.symbolOpacity = 2, 1
        legend.symbolFillColor = "transparent"
        return legend


def methods_key(methods: Iterable[str], study: StudyInfo) -> Key:
    """Return the key of methods, each with the marks that it has in every figure of the study.

    A family has a colour, and its members shapes, which no other method has as long as they last.
    """
    named, marks = set(methods), _marks(study)
    # A study of a sweep alone has no methods, but the profile measures LoRA.
    order = [name for name in marks if name in named]
    names = {name: study.label(name) for name in order}
    colours, shapes = [marks[name][0] for name in order], [marks[name][1] for name in order]
    return Key("method", names, colours, shapes, [marks[name][2] for name in order])


def series_key(field: str, values: list[str]) -> Key:
    """Return a key of values that are no methods; marks come again beyond seven, in other pairs."""
    turns = [divmod(place, len(SERIES_COLOURS)) for place in range(len(values))]
    shapes = [SHAPES[sum(turn) % len(SHAPES)] for turn in turns]
    colours = [SERIES_COLOURS[number] for _, number in turns]
    return Key(field, {value: value for value in values}, colours, shapes, [DASHES[0]] * len(turns))


def _marks(study: StudyInfo) -> dict[str, tuple[str, str, list[int]]]:
    """Return the colour, shape and dash of the study's methods, and of all of the table."""
    marks: dict[str, tuple[str, str, list[int]]] = {}
    members: dict[str, int] = {}
    table = {name: row.family for name, row in METHODS.items()}
    declared = {method.name: method.family for method in study.methods}
    for name, family in (table | declared).items():
        colour = FAMILY_COLOURS.get(family, FAMILY_COLOURS["other"])
        number = members[colour] = members.get(colour, -1) + 1
        used = [(mark[0], mark[1]) for mark in marks.values()]
        free = [shape for shape in SHAPES if shape not in {of for _, of in used}]
        while not free:  # shapes that no other of the family has; then it gets a lighter colour
            free = [shape for shape in SHAPES if (colour, shape) not in used]
            colour = colour if free else _lighter(colour)
        marks[name] = colour, free[0], DASHES[number % len(DASHES)]
    return {name: marks[name] for name in (*declared, *marks)}


def _lighter(colour: str) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{(2 * part + 255) // 3:02X}" for part in parts)


def stacked(
    field: str,
    factor: float,
    title: str,
    end: float,
    labels: list[str],
    series: str,
    looks: Looks,
    *beside: alt.Chart,
) -> alt.LayerChart:
    """Return horizontal bars stacked by the field `series`, as wide as a figure.

    `factor` turns `field` into the unit shown, that of `end`; rows without `order` are not drawn.
    `labels` are the bars', from above, `looks` the segments', in order; `beside` shares their rows.
    """
    # As wide as said, since the text may be drawn wider than the renderer reckons.
    room = BAR_LABELS
    axis = _axis_of({label: label for label in labels}, room)
    y = alt.Y("label:N", sort=labels, title=None, axis=axis)
    base = scaled(factor, field).transform_filter("isValid(datum.order)")
    by_order = [alt.SortField("order")]
    base = base.transform_stack(["begin", "end"], f"{field}_shown", ["label"], sort=by_order)
    named = {name: f"{mark or '(blank)'}: {text}" for name, (mark, text, _) in looks.items()}
    legend = _legend_of(named)
    legend.columns, legend.symbolType = 3 if len(looks) > 4 else 4, "square"
    scale = alt.Scale(domain=list(looks), range=[colour for _, _, colour in looks.values()])
    colour = alt.Color(f"{series}:N", scale=scale, legend=legend)
    x = alt.X("begin:Q", title=title, axis=alt.Axis(tickCount=6)).scale(domain=[0, end], nice=False)
    bars = base.mark_bar(stroke="white", strokeWidth=1).encode(x=x, x2="end:Q", color=colour)
    letter = _expression({name: mark for name, (mark, _, _) in looks.items()}, series)
    text = f"{letter} + ' ' + format(datum.end - datum.begin, '.0f')"
    wide = base.transform_filter(f"datum.end - datum.begin > {end / 18!r}")
    wide = wide.transform_calculate(middle="(datum.begin + datum.end) / 2", text=text)
    x = alt.X("middle:Q", title=title)
    texts = wide.mark_text(fontSize=10, color="black").encode(x=x, text="text:N")
    layers = [layer.encode(y=y) for layer in (bars, texts, *beside)]
    return alt.LayerChart(layer=layers, width=panel_width(1, BAR_LABELS), height={"step": 30})


def columns_of(panels: int) -> int:
    """Return the columns of a grid of at most four, its rows as full as they get."""
    return math.ceil(panels / math.ceil(panels / 4))


def panel_width(columns: int, left: int = LABELS, each: int = 0) -> int:
    """Return the px for each panel, if `left` px stand left of the first and `each` beside all."""
    return (WIDTH - MARGIN - left - (columns - 1) * SPACING) // columns - each


def grid(panels: list[alt.LayerChart], columns: int, title: str, subtitle: str) -> alt.ConcatChart:
    """Return a figure of panels, every text at its left edge."""
    lines = textwrap.wrap(title, 80, break_on_hyphens=False)
    heading = alt.TitleParams(lines, anchor="start", fontSize=14, offset=12)
    heading.subtitle = textwrap.wrap(subtitle, 105, break_on_hyphens=False)
    heading.subtitleFontSize, heading.subtitleColor = 11, "#333333"
    figure = alt.concat(*panels, columns=columns, align="each", bounds="full", spacing=SPACING)
    return (
        figure.properties(title=heading, background="white")
        .configure(font="sans-serif", padding=6)
        .configure_view(stroke="#DDDDDD")
        .configure_axis(
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", gridColor="#EAEAEA"
        )
        .configure_title(fontSize=12, anchor="start")
        .configure_legend(orient="bottom", direction="horizontal", labelFontSize=11, symbolSize=70)
    )


def on_front(points: alt.Chart, key: Key, size: int) -> list[alt.Chart]:
    """Return the points, filled where `front` is true: lightly, for methods may coincide."""
    beaten, front = (points.transform_filter(f"{no}datum.front") for no in ("!", ""))
    about: dict[str, Any] = {"size": size, "strokeWidth": 2, "opacity": 1}
    return [
        beaten.mark_point(**about),
        front.mark_point(**about, fillOpacity=0.6).encode(fill=key.fill()),
    ]


def scaled(factor: float, *fields: str) -> alt.Chart:
    """Return a chart with `fields` as `<field>_shown`, times `factor`; what is null stays null."""
    shown = {f"{f}_shown": f"isValid(datum.{f}) ? {factor!r} * datum.{f} : null" for f in fields}
    return alt.Chart().transform_calculate(**shown)


def x_of(field: str, title: str) -> alt.X:
    """Return a horizontal axis that shows the range of its data."""
    return alt.X(f"{field}:Q", title=title, axis=TICKS, scale=NICE)


def y_of(field: str, title: str, scale: alt.Scale = FITTED) -> alt.Y:
    """Return a vertical axis that shows the range of its data, or what `scale` says."""
    return alt.Y(f"{field}:Q", title=title, axis=TICKS, scale=scale)


def _axis_of(names: dict[str, str], width: int) -> alt.Axis:
    """Return an axis of names, `width` px wide, on two lines at most.

    Longer ones lose their middle: what tells settings apart stands at the end.
    """
    most, lines = width // 6, {}
    for value, name in names.items():
        found = textwrap.wrap(name, most)
        lines[value] = "\n".join(found if len(found) < 3 else [found[0], f"…{name[1 - most :]}"])
    axis = alt.Axis(ticks=False, domain=False, minExtent=width, maxExtent=width, labelLimit=width)
    axis.labelExpr = text = f"split({_expression(lines)}, '\\n')"
    # Two lines would begin, rather than lie, at the middle of their row.
    axis.labelOffset = {"condition": {"test": f"length({text}) > 1", "value": -7}, "value": 0}
    return axis


def columns_for(panels: int, key: Key) -> int:
    """Return the columns of a grid whose panels each show all series: two of more than six."""
    return columns_of(panels) if len(key.names) <= MANY else min(2, columns_of(panels))


def _legend_of(names: dict[str, str]) -> alt.Legend:
    legend = alt.Legend(title=None, labelExpr=_expression(names), labelLimit=WIDTH - MARGIN)
    legend.columns = max(1, min(5, WIDTH // (30 + 6 * max(map(len, names.values()), default=1))))
    return legend


def _expression(names: dict[str, str], field: str = "label") -> str:
    """Return the expression that turns a field's value, by default a label, into its name."""
    pairs = ", ".join(f"{value!r}: {name!r}" for value, name in names.items())
    return f"({{{pairs}}})[datum.{field}]"
