"""Stage `aggregate`: from the scores of all runs to the study's summary and statistics."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.findings.aggregate import aggregate, markdown_table, sweep_table
from peft_study.findings.results import load_cells
from peft_study.findings.statistics import averages, compare_cells, describe_cells


def main() -> None:
    config, metrics = read_json(Path("configs/aggregate.json")), Path("metrics")
    methods, main_metrics = config["methods"], config["main_metrics"]
    cells = load_cells(config, metrics)
    gaps = [
        {"method": method, "task": task}
        for method in methods
        for task in main_metrics
        if (method, task) not in cells
    ]
    summary = aggregate(config, cells)
    write_json(metrics / "summary.json", summary)
    statistics = {
        "gaps": gaps,
        "cells": describe_cells(cells),
        "differences": compare_cells(cells, config["equivalence_margin"]),
        "averages": averages(cells, methods, main_metrics),
    }
    write_json(metrics / "statistics.json", statistics)
    sweep = read_json(metrics / "runs/sweep.json")
    write_json(metrics / "sweep.json", sweep_table(config["sweep"], sweep.__getitem__))
    if cells:
        print(markdown_table(summary, {task: main_metrics[task] for task in config["tasks"]}))
    for gap in gaps:
        print(f"aggregate: no results of {gap['method']} on {gap['task']}")
    print("aggregate: wrote metrics/summary.json, metrics/statistics.json, metrics/sweep.json")


if __name__ == "__main__":
    run_command(main)
