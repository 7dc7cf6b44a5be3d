"""From the histories of all runs: stability over seeds, and the cost of reaching equal scores."""

import statistics
from pathlib import Path
from typing import Any

import pandas as pd

from peft_study.findings.aggregate import coefficient_of_variation

KEYS = ["task", "method"]
COSTS = ("step", "epoch", "seconds", "joules")


def learning_curves(config: dict[str, Any], runs: Path) -> pd.DataFrame:
    """Return a row per evaluation of every run, in the order of the study.

    Args:
        config: `configs/curves.json`: the methods, the tasks with their main metrics, the seeds.
        runs: the folder of all cells' runs. A cell that lacks a run is left out.

    Returns:
        Columns `task`, `method`, `seed`, `step`, `epoch`, `metric` (the task's main one), `score`
        (of that metric), `train_loss`, `validation_loss`, and `train_seconds` until then.
    """
    cells = [
        (task, method, metric, runs / method / task)
        for task, metric in config["main_metrics"].items()
        for method in config["methods"]
    ]
    return _read(cells, config["seeds"])


def sweep_curves(config: dict[str, Any], runs: Path) -> pd.DataFrame:
    """Return the same of the sweep's cells: `method` is a cell's name, such as `query+value-r8`."""
    sweep = config["sweep"] or {"task": None, "cells": []}
    metric = config["main_metrics"].get(sweep["task"])
    cells = [(sweep["task"], name, metric, runs / "sweep" / name) for name in sweep["cells"]]
    return _read(cells, config["seeds"])


def _read(cells: list[tuple[str, str, str, Path]], seeds: list[int]) -> pd.DataFrame:
    columns = [*KEYS, "seed", "step", "epoch", "metric", "score"]
    columns += ["train_loss", "validation_loss", "train_seconds"]
    frames = []
    for task, method, metric, runs in cells:
        folders = {seed: runs / f"seed-{seed}" for seed in seeds}
        if not all((folder / "timings.csv").is_file() for folder in folders.values()):
            continue
        for seed, folder in folders.items():
            history = pd.read_csv(folder / "history.csv")
            timings = pd.read_csv(folder / "timings.csv")
            frame = history[["step", "epoch", "train_loss", "validation_loss"]].assign(
                task=task,
                method=method,
                seed=seed,
                metric=metric,
                score=history[metric],
                train_seconds=timings["train_seconds"],
            )
            frames.append(frame)
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def over_seeds(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the learning curve of every cell: a row per evaluation.

    Returns:
        Rows of task, method, metric, step, epoch, n, `mean`, `low` and `high`, the mean and the
        range of the seeds' scores, and the means of `train_loss` and `validation_loss`.
    """
    points = curves.groupby([*KEYS, "metric", "step", "epoch"], sort=False)
    found = points.agg(
        n=("score", "size"),
        mean=("score", "mean"),
        low=("score", "min"),
        high=("score", "max"),
        train_loss=("train_loss", "mean"),
        validation_loss=("validation_loss", "mean"),
    )
    return [
        {str(key): value for key, value in row.items()}
        for row in found.reset_index().to_dict("records")
    ]


def stability(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how much the seeds of each cell differ at every evaluation.

    Returns:
        Rows of task, method, step, epoch, n, mean, std (ddof 1), and cv, the coefficient of
        variation; both None for one seed, cv also unless the mean is positive.

    Source: section III.C of Liu et al., who compare LoRA with adapters by it.
    """
    rows = []
    for (task, method, _), group in curves.groupby([*KEYS, "step"], sort=False):
        scores = group["score"].tolist()
        point = group[["step", "epoch"]].to_dict("records")[0]
        rows.append(
            {"task": task, "method": method, "step": point["step"], "epoch": point["epoch"]}
            | {"n": len(scores), "mean": statistics.fmean(scores)}
            | {"std": statistics.stdev(scores) if len(scores) > 1 else None}
            | {"cv": coefficient_of_variation(scores)}
        )
    return rows


def epoch_seconds(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the seconds of training that an epoch took, over all seeds and epochs of each cell.

    Returns:
        Rows of task, method, n, mean and std (ddof 1; None for a single epoch), in seconds. They
        are the runs' own: of the processor on CPUs, which the runs of a cell share.
    """
    ends = curves[curves["epoch"] % 1 == 0]
    before = ends.groupby([*KEYS, "seed"], sort=False)["train_seconds"].shift(fill_value=0.0)
    lasted = ends.assign(lasted=ends["train_seconds"] - before)
    rows = []
    for (task, method), group in lasted.groupby(KEYS, sort=False):
        seconds = group["lasted"].tolist()
        rows.append(
            {"task": task, "method": method, "n": len(seconds), "mean": statistics.fmean(seconds)}
            | {"std": statistics.stdev(seconds) if len(seconds) > 1 else None}
        )
    return rows


def iso_accuracy(
    curves: pd.DataFrame, margin: float, joules_per_epoch: dict[tuple[str, str], float]
) -> list[dict[str, Any]]:
    """Return when each run first reaches what both LoRA and full fine-tuning reach.

    A task's target is the lower of the two methods' medians over seeds of their best evaluation,
    minus `margin`.

    Args:
        curves: what `learning_curves` returned.
        margin: as a fraction of the metric; the source has 0.005.
        joules_per_epoch: by task and method, of those that the profile measured.

    Returns:
        Rows of task, method, seed, target, `reached`, and step, epoch, seconds and joules of
        training until then, None where the run never reached it, and joules where they were not
        measured; no rows of a task unless `lora` and `full_ft` were trained on it. The seconds are
        the runs' own: of the processor on CPUs.

    Source: "Tiny Reproduction: LoRA", iso-accuracy analysis.
    """
    runs = curves.groupby([*KEYS, "seed"], sort=False)
    best = runs["score"].max().groupby(KEYS).median().to_dict()
    rows = []
    for key, run in runs:
        task, method, seed = str(key[0]), str(key[1]), int(run["seed"].iloc[0])
        if not {(task, "lora"), (task, "full_ft")} <= set(best):
            continue
        target = min(best[task, "lora"], best[task, "full_ft"]) - margin
        reached = run[run["score"] >= target].head(1)
        row = {"task": task, "method": method, "seed": seed, "target": target}
        row |= {"reached": len(reached) == 1} | dict.fromkeys(COSTS)
        for found in reached.to_dict("records"):
            row |= {"step": found["step"], "epoch": found["epoch"]}
            row |= {"seconds": found["train_seconds"]}
            if (task, method) in joules_per_epoch:
                row |= {"joules": joules_per_epoch[task, method] * found["epoch"]}
        rows.append(row)
    return rows
