"""How the figures look: the marks of every method, panels of one size, titles with their n."""

import math
import textwrap
from collections.abc import Iterable, Sequence

import altair as alt

from peft_study.records import Record
from peft_study.records.study import StudyInfo

WIDTH = 680  # px, of a whole figure
LABELS = 110  # px, for the names left of a figure's first column
BAR_LABELS = 160  # px, for longer ones
SPACING = 14  # px, between panels
MARGIN = 36  # px, of a figure's padding and of labels that stand beyond their axis

# Okabe and Ito's colours, which all readers tell apart; those too pale for white paper are left
# out where a mark must be seen by itself. Shapes say the same without colour.
BLUE, VERMILION, PURPLE, GREEN, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#000000"
SKY, ORANGE, YELLOW, GREY = "#56B4E9", "#E69F00", "#F0E442", "#BBBBBB"
METHOD_COLOURS = (BLUE, VERMILION, PURPLE, GREEN, BLACK, ORANGE, SKY)  # by place
SERIES_COLOURS = (BLUE, VERMILION, GREEN, BLACK, PURPLE, ORANGE, SKY)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
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

    def colour(self, *, legend: bool = True) -> alt.Color:
        """Colour by series; without a legend where the rows are labelled."""
        scale = alt.Scale(domain=list(self.names), range=self.colours)
        return alt.Color(f"{self.field}:N", scale=scale, legend=self._legend() if legend else None)

    def shape(self, *, legend: bool = True) -> alt.Shape:
        """Shape by series; joins the legend of the colours."""
        scale = alt.Scale(domain=list(self.names), range=self.shapes)
        return alt.Shape(f"{self.field}:N", scale=scale, legend=self._legend() if legend else None)

    def y(self, *, labelled: bool = True, width: int = LABELS) -> alt.Y:
        """Return rows by series, labels `width` px wide in a figure's first column."""
        axis = alt.Axis(labels=labelled, labelExpr=_expression(self.names), labelLimit=width)
        axis.minExtent = axis.maxExtent = width if labelled else 0
        axis.ticks, axis.domain, axis.grid = False, False, True
        values = list(self.names)
        scale = alt.Scale(domain=values)
        return alt.Y(f"{self.field}:N", sort=values, scale=scale, axis=axis, title=None)

    def _legend(self) -> alt.Legend:
        legend = _legend_of(self.names)
        legend.symbolStrokeWidth, legend.symbolOpacity = 2, 1
        legend.symbolFillColor = "transparent"
        return legend


def methods_key(methods: Iterable[str], study: StudyInfo) -> Key:
    """Return the key of methods, each with the marks that it has in every figure."""
    named = set(methods)
    places = {method.name: method.place for method in study.methods if method.name in named}
    # A study of a sweep alone has no methods, but the profile measures LoRA.
    places |= {name: place for place, name in enumerate(sorted(named - set(places)))}
    names = {name: study.label(name) for name in places}
    return _key("method", names, METHOD_COLOURS, places.values())


def series_key(field: str, values: list[str]) -> Key:
    """Return a key of values that are no methods."""
    return _key(field, {value: value for value in values}, SERIES_COLOURS, range(len(values)))


def _key(field: str, names: dict[str, str], palette: Sequence[str], places: Iterable[int]) -> Key:
    """Return a key whose marks come again beyond seven, then in other pairs."""
    turns = [divmod(place, len(palette)) for place in places]
    shapes = [SHAPES[(turn + number) % len(SHAPES)] for turn, number in turns]
    return Key(field, names, [palette[number] for _, number in turns], shapes)


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
    axis = alt.Axis(labelLimit=room, minExtent=room, maxExtent=room, ticks=False, domain=False)
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
        .configure_legend(
            orient="bottom", direction="horizontal", columns=5, labelFontSize=11, symbolSize=70
        )
    )


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


def _legend_of(names: dict[str, str]) -> alt.Legend:
    return alt.Legend(title=None, labelExpr=_expression(names), labelLimit=0)


def _expression(names: dict[str, str], field: str = "label") -> str:
    """Return the expression that turns a field's value, by default a label, into its name."""
    pairs = ", ".join(f"{value!r}: {name!r}" for value, name in names.items())
    return f"({{{pairs}}})[datum.{field}]"
