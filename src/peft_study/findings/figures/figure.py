"""What a figure is, and its files."""

import re
from collections.abc import Iterable
from pathlib import Path

import altair as alt
import vl_convert
from altair import LayerChart  # for the class whose `alt` hides the module

from peft_study.files import replacing, write_json
from peft_study.findings.figures import charts
from peft_study.findings.results import FigureInfo
from peft_study.records import Record

VEGA_LITE = "6.4"  # of the altair and vl-convert that are pinned
FILES = {"data": "json", "specs": "json", "svg": "svg"}  # by folder, their suffixes
Scalar = str | int | float | bool | None
Row = dict[str, Scalar]  # of a figure's data


class Figure(Record):
    """A figure: what it shows, in words, in rows and as a chart."""

    name: str
    title: str
    subtitle: str  # how many there are of each mean, and what the marks are, in short
    caption: str  # the same in plain words, and what is missing
    alt: str  # one sentence with the main figures, for those who do not see it
    unit: str  # of the values in `rows`, and how they are shown if otherwise
    sources: list[str]  # the files of `metrics/` that it was drawn from
    rows: list[Row]  # tidy; the data of all panels
    panels: list[LayerChart]
    columns: int | None = None  # of panels; by default rows are as full as they get


def row(**fields: Scalar) -> Row:
    """Return a row of a figure's data."""
    return fields


def write_figures(figures: Iterable[Figure], folder: Path) -> None:
    """Write rows, specifications, SVGs and their list, `figures.json`; remove other figures'."""
    listed, kept = [], set()
    for name in FILES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for figure in figures:
        data, spec, svg = (folder / at / f"{figure.name}.{end}" for at, end in FILES.items())
        kept |= {data, svg, spec}
        write_json(data, figure.rows)
        write_json(spec, specification(figure))
        with replacing(svg) as temporary:
            temporary.write_text(render_svg(figure), encoding="utf-8")
        words = figure.name, figure.title, figure.caption, figure.alt, figure.unit
        files = f"plots/data/{data.name}", f"plots/svg/{svg.name}"
        listed.append(FigureInfo(*words, tuple(figure.sources), *files))
    for path in {path for name in FILES for path in folder.glob(f"{name}/*")} - kept:
        path.unlink()
    write_json(folder / "figures.json", listed)


def specification(figure: Figure) -> dict[str, object]:
    """Return a figure's Vega-Lite specification, its rows inlined."""
    columns = figure.columns or charts.columns_of(len(figure.panels))
    chart = charts.grid(figure.panels, columns, figure.title, figure.subtitle)
    chart.data, chart.description = alt.InlineData(values=figure.rows), figure.alt
    with alt.data_transformers.enable("default", consolidate_datasets=False, max_rows=None):
        return chart.to_dict()


def render_svg(figure: Figure) -> str:
    """Return a figure as SVG; nothing is fetched."""
    svg = vl_convert.vegalite_to_svg(specification(figure), VEGA_LITE, allowed_base_urls=[])
    # The converter numbers clips and gradients through its process's life: count them here anew.
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    numbers = {name: f"{figure.name}-{number}" for number, name in enumerate(names)}
    return re.sub(r'(\bid="|url\(#)([^")]+)', lambda found: found[1] + numbers[found[2]], svg)
