"""Stage `report`: the page, and the tables in the papers' form."""

import shutil
import subprocess
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, replacing
from peft_study.findings.page.papers import latex_tables, markdown_tables
from peft_study.findings.page.render import render
from peft_study.findings.results import Results, load_results


def main() -> None:
    results, metrics, plots = load_results(), Path("metrics"), Path("plots")
    shutil.rmtree(metrics / "tables", ignore_errors=True)
    (metrics / "tables").mkdir()
    for suffix, tables in (("md", markdown_tables(results)), ("tex", latex_tables(results))):
        for name, table in tables.items():
            (metrics / "tables" / f"{name}.{suffix}").write_text(table, encoding="utf-8")
    figures = read_json(plots / "figures.json")
    page = render(
        results,
        claims=read_json(metrics / "claims.json"),
        published=read_json(metrics / "published.json"),
        figures=figures,
        specs={f["name"]: read_json(plots / "specs" / f"{f['name']}.json") for f in figures},
        ran={
            "commit": commit(),
            "machine": results.profile.get("machine", {}),
            "packages": results.study["packages"],
            "seconds_of_training": sum(
                row["n"] * row["mean"] for row in results.iso_accuracy["seconds_per_epoch"]
            ),
            "data": data_of(results),
        },
    )
    with replacing(plots / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print("report: wrote plots/report.html, metrics/tables/")


def commit() -> str | None:
    """Return the commit that is checked out; None outside of a repository."""
    command = ["git", "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def data_of(results: Results) -> dict[str, dict[str, dict[str, object]]]:
    """Return the rows of each task's splits and the hashes of their ids."""
    return {task: cell["data"] for (_, task), cell in results.cells.items()}


if __name__ == "__main__":
    run_command(main)
