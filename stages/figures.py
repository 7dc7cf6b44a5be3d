"""Stage `figures`: pictures of the findings, each with its data."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json
from peft_study.findings.figures import figures, write_figures
from peft_study.findings.results import load_results


def main() -> None:
    drawn = figures(load_results(), read_json(Path("metrics/published.json")))
    write_figures(drawn, Path("plots"))
    print(f"figures: wrote {len(drawn)} figure(s) to plots/")


if __name__ == "__main__":
    run_command(main)
