"""Stage `aggregate`: median and standard deviation over seeds of every cell, and of the sweep's."""

from pathlib import Path

from peft_study.analysis.aggregate import aggregate, markdown_table, sweep_table
from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    config, scores = read_json(Path("configs/aggregate.json")), Path("metrics/runs")
    summary = aggregate(config, lambda method, task: read_json(scores / method / f"{task}.json"))
    write_json(Path("metrics/summary.json"), summary)
    sweep = read_json(scores / "sweep.json")
    write_json(Path("metrics/sweep.json"), sweep_table(config["sweep"], sweep.__getitem__))
    if config["methods"]:
        main_metrics = {task: config["main_metrics"][task] for task in config["tasks"]}
        print(markdown_table(summary, main_metrics))
    print("aggregate: wrote metrics/summary.json and metrics/sweep.json")


if __name__ == "__main__":
    run_command(main)
