"""From the predictions of a cell's runs to its scores."""

from pathlib import Path
from typing import Any

import pandas as pd

from peft_study.data.metrics import score
from peft_study.data.tasks import Task
from peft_study.files import read_json


def evaluate(config: dict[str, Any], runs: Path, prepared: Path) -> dict[str, Any]:
    """Score every run of a cell from its stored predictions.

    Args:
        config: the cell's configuration: of `configs/train/`, or of `configs/sweep.json`.
        runs: the cell's folder, with a `seed-<n>/` for each seed.
        prepared: the task's folder, whose summary says which rows were used.

    Returns:
        `{task, method, baseline, data, trainable, report, seeds: {seed: {first, best, last}}}`,
        where `first`, `best` and `last` each hold `step`, `epoch` and a fraction per metric, and
        `data` the number of rows of each split with a hash of their ids.
    """
    task = Task.from_config(config["task_definition"])
    summary = read_json(prepared / "summary.json")
    seeds = {}
    for seed in config["seeds"]:
        directory = runs / f"seed-{seed}"
        trainable = read_json(directory / "run.json")["trainable"]
        frame = pd.read_parquet(directory / "predictions.parquet")
        evaluations = [
            {"step": int(str(step)), "epoch": float(group["epoch"].iloc[0])} | _score(task, group)
            for step, group in frame.groupby("step")
        ]
        best = max(evaluations, key=lambda found: found[task.metrics[0]])  # the earliest of equals
        seeds[str(seed)] = {"first": evaluations[0], "best": best, "last": evaluations[-1]}
    return {
        "task": config["task"],
        "method": config["method"],
        "baseline": summary["baseline"],
        "data": {
            name: {key: split[key] for key in ("rows", "sha256_of_ids")}
            for name, split in summary["splits"].items()
        },
        "trainable": trainable,
        "report": config["train"]["report"],
        "seeds": seeds,
    }


def _score(task: Task, group: pd.DataFrame) -> dict[str, float]:
    """Score one evaluation, and each part of the validation split, as `accuracy_matched`, say."""
    scores = score(task.metrics, group["prediction"].to_numpy(), group["label"].to_numpy())
    for part in task.parts:
        rows = group[group["id"].str.startswith(f"{part}:")]
        if len(rows):
            found = score(task.metrics, rows["prediction"].to_numpy(), rows["label"].to_numpy())
            scores |= {f"{metric}_{part}": value for metric, value in found.items()}
    return scores
