"""Stage `aggregate`: median and standard deviation over seeds of every cell of the study."""

from pathlib import Path

from peft_study.analysis.aggregate import aggregate, markdown_table
from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    config = read_json(Path("configs/aggregate.json"))
    summary = aggregate(
        config, lambda method, task: read_json(Path(f"metrics/runs/{method}/{task}.json"))
    )
    write_json(Path("metrics/summary.json"), summary)
    print(markdown_table(summary))
    print("aggregate: wrote metrics/summary.json")


if __name__ == "__main__":
    run_command(main)
