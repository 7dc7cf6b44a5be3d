"""How the figures look: the marks of every method, panels of one size, titles with their n."""

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import altair as alt

from peft_study.findings.aggregate import METHOD_NAMES

WIDTH = 680  # px, of a whole figure
LABELS = 110  # px, for the names left of a figure's first column
BAR_LABELS = 150  # px, for longer ones
SPACING = 14  # px, between panels
MARGIN = 36  # px, of a figure's padding and of labels that stand beyond their axis

# Okabe and Ito's colours, which all readers tell apart; those too pale for white paper are left
# out where a mark must be seen by itself. Shapes say the same without colour.
BLUE, VERMILION, PURPLE, GREEN, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#000000"
SKY, ORANGE, YELLOW, GREY = "#56B4E9", "#E69F00", "#F0E442", "#BBBBBB"
COLOURS = dict(zip(METHOD_NAMES, (BLUE, VERMILION, PURPLE, GREEN, BLACK), strict=True))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
SAW = "M-1,-1L1,1M-1,1L1,-1"  # a saltire, which no method has


@dataclass(frozen=True)
class Key:
    """What tells a figure's series apart: the field, its values in order, their names and marks."""

    field: str
    values: list[str]
    names: list[str]
    colours: list[str]
    shapes: list[str]

    @property
    def colour(self) -> alt.Color:
        """Colour by series, with a legend."""
        return alt.Color(f"{self.field}:N", scale=self._scale(self.colours), legend=self._legend())

    @property
    def shape(self) -> alt.Shape:
        """Shape by series; joins the legend of the colours."""
        return alt.Shape(f"{self.field}:N", scale=self._scale(self.shapes), legend=self._legend())

    @property
    def bare_colour(self) -> alt.Color:
        """Colour by series where its rows are labelled: no legend."""
        return alt.Color(f"{self.field}:N", scale=self._scale(self.colours), legend=None)

    @property
    def bare_shape(self) -> alt.Shape:
        """Shape by series where its rows are labelled: no legend."""
        return alt.Shape(f"{self.field}:N", scale=self._scale(self.shapes), legend=None)

    def y(self, *, labelled: bool = True) -> alt.Y:
        """Return rows by series, labelled with their names in a figure's first column."""
        axis = alt.Axis(
            labels=labelled,
            labelExpr=_expression(self.values, self.names),
            labelLimit=LABELS,
            minExtent=LABELS if labelled else 0,
            maxExtent=LABELS if labelled else 0,
            ticks=False,
            domain=False,
            grid=True,
        )
        scale = alt.Scale(domain=self.values)
        return alt.Y(f"{self.field}:N", sort=self.values, scale=scale, axis=axis, title=None)

    def _scale(self, marks: list[Any]) -> alt.Scale:
        return alt.Scale(domain=self.values, range=marks)

    def _legend(self) -> alt.Legend:
        names = _expression(self.values, self.names)
        return alt.Legend(
            title=None,
            labelExpr=names,
            labelLimit=0,
            symbolStrokeWidth=2,
            symbolOpacity=1,
            symbolFillColor="transparent",
        )


def methods_key(methods: Iterable[str]) -> Key:
    """Return the key of methods, each with the marks that it has in every figure."""
    order = list(METHOD_NAMES)
    found = sorted(set(methods), key=order.index)
    places = [order.index(method) for method in found]
    return Key(
        "method",
        found,
        [METHOD_NAMES[method] for method in found],
        [COLOURS[method] for method in found],
        [SHAPES[place] for place in places],
    )


def other_key(field: str, values: list[str]) -> Key:
    """Return a key of values that are no methods; beyond seven, marks come again."""
    colours = [BLUE, VERMILION, GREEN, BLACK, PURPLE, ORANGE, SKY]
    places = [number % len(colours) for number in range(len(values))]
    return Key(
        field,
        values,
        values,
        [colours[place] for place in places],
        [SHAPES[place] for place in places],
    )


@dataclass(frozen=True)
class Stack:
    """Horizontal bars stacked by a series; a letter says what a segment is, without its colour.

    Attributes:
        field: of the rows' values; rows without an `order` are not drawn.
        factor: from the unit of the rows to the one shown.
        title: of the axis, with its unit.
        end: of the axis, in the unit shown.
        labels: of the bars, from above.
        series: the field of the segments' names.
        values: of the series, in order.
        names: of the values, in the legend.
        letters: of the values, in segments wide enough for one.
        colours: of the values.
    """

    field: str
    factor: float
    title: str
    end: float
    labels: list[str]
    series: str
    values: list[str]
    names: list[str]
    letters: list[str]
    colours: list[str]

    @property
    def y(self) -> alt.Y:
        """Rows by label."""
        axis = alt.Axis(labelLimit=BAR_LABELS, ticks=False, domain=False)
        return alt.Y("label:N", sort=self.labels, title=None, axis=axis)

    def layers(self) -> list[alt.Chart]:
        """Return the bars, and what stands in them."""
        base = scaled(alt.Chart(), self.factor, self.field)
        base = base.transform_filter("isValid(datum.order)").transform_stack(
            stack=f"{self.field}_shown",
            groupby=["label"],
            sort=[alt.SortField("order")],
            as_=["begin", "end"],
        )
        legend = alt.Legend(
            title=None,
            labelExpr=_expression(self.values, self.names),
            labelLimit=0,
            columns=3 if len(self.values) > 4 else 4,
            symbolType="square",
        )
        scale = alt.Scale(domain=self.values, range=self.colours)
        colour = alt.Color(f"{self.series}:N", scale=scale, legend=legend)
        fitted = alt.Scale(domain=[0, self.end], nice=False)
        x = alt.X("begin:Q", title=self.title, scale=fitted, axis=alt.Axis(tickCount=6))
        letter = _expression(self.values, self.letters).replace("label", self.series)
        size = "format(datum.end - datum.begin, '.0f')"
        return [
            base.mark_bar(stroke="white", strokeWidth=1).encode(
                x=x, x2="end:Q", y=self.y, color=colour
            ),
            base.transform_filter(f"datum.end - datum.begin > {self.end / 18!r}")
            .transform_calculate(
                middle="(datum.begin + datum.end) / 2", text=f"{letter} + ' ' + {size}"
            )
            .mark_text(fontSize=10, color="black")
            .encode(x=alt.X("middle:Q", title=self.title), y=self.y, text="text:N"),
        ]


def bars(*layers: alt.Chart) -> Any:
    """Return a panel of horizontal bars as wide as a figure."""
    return alt.layer(*layers).properties(width=panel_width(1, BAR_LABELS), height={"step": 30})


def columns_of(panels: int) -> int:
    """Return the columns of a grid of at most four, its rows as full as they get."""
    return math.ceil(panels / math.ceil(panels / 4))


def panel_width(columns: int, left: int = LABELS, each: int = 0) -> int:
    """Return the width of a panel, in px, that lets all columns fit.

    Args:
        columns: panels side by side.
        left: what stands left of the first one.
        each: what stands beside every one, such as an axis of its own.
    """
    return (WIDTH - MARGIN - left - (columns - 1) * SPACING) // columns - each


def grid(
    panels: list[Any], rows: list[dict[str, Any]], columns: int, title: str, subtitle: str
) -> alt.ConcatChart:
    """Return a figure of panels over the same rows, every text at its left edge."""
    heading = alt.TitleParams(
        textwrap.wrap(title, 80, break_on_hyphens=False),
        subtitle=textwrap.wrap(subtitle, 105, break_on_hyphens=False),
        anchor="start",
        fontSize=14,
        subtitleFontSize=11,
        subtitleColor="#333333",
        offset=12,
    )
    figure = alt.concat(
        *panels,
        columns=columns,
        align="each",
        bounds="full",
        spacing=SPACING,
        data=alt.InlineData(values=rows),
        title=heading,
        background="white",
    )
    return (
        figure.configure(font="sans-serif", padding=6)
        .configure_view(stroke="#DDDDDD")
        .configure_axis(
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", gridColor="#EAEAEA"
        )
        .configure_title(fontSize=12, anchor="start")
        .configure_legend(
            orient="bottom", direction="horizontal", columns=5, labelFontSize=11, symbolSize=70
        )
    )


def scaled(chart: alt.Chart, factor: float, *fields: str) -> alt.Chart:
    """Return `chart` with `fields` as `<field>_shown`, times `factor`; what is null stays null."""
    for field in fields:
        shown = f"isValid(datum.{field}) ? {factor!r} * datum.{field} : null"
        chart = chart.transform_calculate(**{f"{field}_shown": shown})
    return chart


def axis_of(field: str, title: str, **scale: Any) -> dict[str, Any]:
    """Return the arguments of a quantitative axis that shows the range of its data."""
    axis = alt.Axis(tickCount=4, labelOverlap=True, labelFlush=False)
    fitted = alt.Scale(**({"zero": False, "nice": True, "padding": 6} | scale))
    return {"shorthand": f"{field}:Q", "title": title, "axis": axis, "scale": fitted}


def _expression(values: list[str], names: list[str]) -> str:
    """Return the expression that turns a label into its name."""
    pairs = ", ".join(f"{v!r}: {n!r}" for v, n in zip(values, names, strict=True))
    return f"({{{pairs}}})[datum.label]"
