"""Stage `report`: the page, and the tables in the papers' form."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, read_record
from peft_study.findings.page.render import render, write_page, write_tables
from peft_study.findings.results import METRICS, Claim, FigureInfo, PublishedRow, load_results


def main() -> None:
    results, plots = load_results(), Path("plots")
    published = read_record(METRICS / "published.json", tuple[PublishedRow, ...])
    figures = read_record(plots / "figures.json", tuple[FigureInfo, ...])
    page = render(
        results,
        claims=read_record(METRICS / "claims.json", tuple[Claim, ...]),
        published=published,
        figures=figures,
        specs={f.name: read_json(plots / "specs" / f"{f.name}.json") for f in figures},
    )
    write_page(page, plots / "report.html")
    write_tables(results, published, METRICS / "tables")
    print("report: wrote plots/report.html, metrics/tables/")


if __name__ == "__main__":
    run_command(main)
