"""Stage `figures`: pictures of the findings, each with its data."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.findings.figures import figures
from peft_study.findings.figures.figure import write_figures
from peft_study.findings.results import METRICS, PublishedRow, load_results


def main() -> None:
    published = read_record(METRICS / "published.json", tuple[PublishedRow, ...])
    drawn = figures(load_results(), published)
    write_figures(drawn, Path("plots"))
    print(f"figures: wrote {len(drawn)} figure(s) to plots/")


if __name__ == "__main__":
    run_command(main)
