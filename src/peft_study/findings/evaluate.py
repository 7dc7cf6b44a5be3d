"""From the predictions of a method's runs to its scores, what rows add, and their histories."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from peft_study.data.draws import rows_of
from peft_study.data.metrics import score
from peft_study.data.tasks import Task
from peft_study.files import read_json, replacing, sha256, write_json
from peft_study.findings.chance import lower_end
from peft_study.findings.cross_fitting import cross_fit, halves
from peft_study.findings.influence import values
from peft_study.findings.rows import write_rows
from peft_study.findings.wording import TRY
from peft_study.records import Record
from peft_study.records.scores import Cell, Counts, Evaluation, Rows, RunScores
from peft_study.records.variants import is_swept
from peft_study.run_config import (
    ADAPTER,
    WEIGHTS_FILE,
    CellConfig,
    LoraSettings,
    PredictionsSettings,
)
from peft_study.stage_configs import VariantCell

Configs = dict[str, CellConfig]  # by the name of their folder of runs
Array = NDArray[np.float64]

COLUMNS = [
    *("task", "method", "weights", "rank", "seed", "step", "epoch", "metric", "score"),
    *("train_loss", "validation_loss", "train_seconds", "adapter"),
]


class Predictions(Record):
    """A run's predictions, of shape (evaluations, rows), and what they are of."""

    steps: list[int]
    epochs: list[float]
    predictions: Array
    labels: Array
    ids: list[str]


class HeldOut(Record):
    """Held-out rows; `scores` tells which metric is of which rows, `halves` how they are split."""

    ids: list[str]
    labels: Array
    scores: dict[str, tuple[str, NDArray[np.bool_]]]
    halves: NDArray[np.bool_]


def evaluate_cells(
    configs: Configs, runs: Path, prepared: Path, metrics: Path, method: str
) -> list[Cell]:
    """Score the cells of a method, by task, and write them, their rows and their histories."""
    cells, rows = [], metrics / "rows" / method
    rows.mkdir(parents=True, exist_ok=True)
    for task, config in configs.items():
        table = rows / f"{task}.parquet"
        cells.append(evaluate(config, runs / task, prepared / task, table))
        write_json(metrics / "runs" / method / f"{task}.json", cells[-1])
    _write_histories(configs, runs, metrics / "histories" / f"{method}.csv")
    return cells


def evaluate_variants(cells: Mapping[str, VariantCell], runs: Path, rows: Path) -> dict[str, Cell]:
    """Score cells of variants or of trials, by place; write what their rows add below `rows`."""
    found = {}
    for place, variant in cells.items():
        table = rows / f"{place}.parquet"
        cell = evaluate(variant.scored, runs / place, Path(variant.data), table)
        if is_swept(place) and (lora := _lora(variant.config)):
            cell = replace(cell, weights=lora.targets, rank=lora.r)
        found[place] = replace(cell, variant=place)
    return found


def write_swept_histories(cells: Mapping[str, VariantCell], runs: Path, path: Path) -> None:
    """Write the histories of the sweep's cells."""
    swept = {place: cell.config for place, cell in cells.items() if is_swept(place)}
    _write_histories(swept, runs, path)


def evaluate(config: CellConfig, runs: Path, prepared: Path, rows: Path) -> Cell:
    """Score every run of a cell from its stored predictions, and write what its rows add to `rows`.

    `runs` has a folder `seed-<n>/` for each seed, `prepared` a summary of which rows were used.
    """
    summary, task = read_json(prepared / "summary.json"), config.run.definition
    report, main = config.run.train.report, task.metrics[0]
    elsewhere = isinstance(config.run.settings, PredictionsSettings)
    seeds, failed, counts = {}, {}, None if elsewhere else Counts(0, 0, 0)
    held_out: HeldOut | None = None
    written: dict[tuple[str, str], Array] = {}
    for seed in map(str, config.seeds):
        directory = runs / f"seed-{seed}"
        run = read_json(directory / "run.json")
        if "failure" in run:
            failed[seed] = run["failure"]
            continue
        counts = Counts(**run["trainable"]) if run["trainable"] else None
        found = _predictions(directory / "predictions.parquet")
        held_out = held_out or _held_out(task, found)
        scored = [
            Evaluation(step, epoch, _score(held_out, predicted))
            for step, epoch, predicted in zip(
                found.steps, found.epochs, found.predictions, strict=True
            )
        ]
        # Of equals the earliest is the best.
        best = max(scored, key=lambda at: at.scores[main])
        if report == "best":
            of = found.predictions, held_out.labels, held_out.halves, held_out.scores
            cross_fitted, of_rows = cross_fit(*of)
        else:
            cross_fitted, of_rows = None, _values(held_out, found.predictions[-1])
        learned = lower_end(of_rows[main]) > summary["baseline"][main]
        seeds[seed] = RunScores(scored[0], best, scored[-1], cross_fitted, learned)
        written |= {(name, seed): of_row for name, of_row in of_rows.items()}
    write_rows(rows, held_out.ids if held_out else [], written)
    data = {}
    for number in config.seeds:
        own = rows_of(prepared, number)
        for split, used in read_json(own / "summary.json")["splits"].items():
            name = f"train seed {number}" if split == "train" and own != prepared else split
            if split != "train" or not elsewhere:
                data[name] = Rows(used["rows"], used["sha256_of_ids"])
    about = config.run.task, config.run.method, report, summary["baseline"]
    return Cell(*about, data, counts, seeds, failed)


def say_unlearned(cell: Cell) -> None:
    """Warn of runs whose scores, by their rows, do not lie above the task's baseline."""
    seeds = [seed for seed, run in cell.seeds.items() if not run.learned]
    if seeds:
        rank = f" (rank {cell.rank})" if cell.rank else ""
        several = "s" if len(seeds) > 1 else ""
        print(
            f"warning: {cell.method} on {cell.task}{rank}: seed{several} {', '.join(seeds)} did "
            f"not learn: the score does not lie above the baseline; {TRY}",
            file=sys.stderr,
        )


def _write_histories(configs: Configs, runs: Path, path: Path) -> None:
    """Write a row per evaluation of every run, in the order of `configs`.

    A cell of which a run has no result is left out. `weights` and `rank` are LoRA's, `score` is of
    the task's main metric, `train_seconds` are until then, and `adapter` is the hash of the
    weights that the run has saved.
    """
    tables = []
    for name, config in configs.items():
        folders = {seed: runs / name / f"seed-{seed}" for seed in config.seeds}
        if not all((folder / "timings.csv").is_file() for folder in folders.values()):
            continue
        metric, lora = config.run.definition.metrics[0], _lora(config)
        for seed, folder in folders.items():
            history, weights = pd.read_csv(folder / "history.csv"), folder / ADAPTER / WEIGHTS_FILE
            table = history.assign(
                task=config.run.task,
                method=config.run.method,
                weights="+".join(lora.targets) if lora else "",
                rank=lora.r if lora else 0,
                seed=seed,
                metric=metric,
                score=history[metric],
                train_seconds=pd.read_csv(folder / "timings.csv")["train_seconds"],
                adapter=sha256(weights) if weights.is_file() else "",
            )
            tables.append(table[COLUMNS])
    found = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    with replacing(path) as temporary:
        found.to_csv(temporary, index=False)


def _lora(config: CellConfig) -> LoraSettings | None:
    return config.run.settings if isinstance(config.run.settings, LoraSettings) else None


def _predictions(path: Path) -> Predictions:
    """Read a run's predictions: every evaluation has the same rows, in the same order."""
    columns = ["step", "epoch", "id", "prediction", "label"]
    frame = pd.read_parquet(path, columns=columns)
    steps = frame.groupby("step", sort=True)
    first = steps.get_group(frame["step"].min())
    found = np.stack([group["prediction"].to_numpy(np.float64) for _, group in steps])
    epochs = [float(epoch) for epoch in steps["epoch"].first()]
    return Predictions(
        [int(str(step)) for step, _ in steps],
        epochs,
        found,
        first["label"].to_numpy(np.float64),
        first["id"].tolist(),
    )


def _held_out(task: Task, found: Predictions) -> HeldOut:
    """Return the held-out rows, and what is scored of them: parts apart, as `accuracy_matched`."""
    everything = np.ones(len(found.ids), dtype=bool)
    scores = {metric: (metric, everything) for metric in task.metrics}
    part_of = np.array([identity.partition(":")[0] for identity in found.ids])
    for part in task.parts:
        # Each half has to have a row of it.
        if (rows := part_of == part).sum() > 1:
            scores |= {f"{metric}_{part}": (metric, rows) for metric in task.metrics}
    groups = [
        f"{part if task.parts else ''}:{label}"
        for part, label in zip(part_of, found.labels, strict=True)
    ]
    split = halves(found.ids, found.labels, groups if task.labels else [""] * len(groups))
    return HeldOut(found.ids, found.labels, scores, split)


def _score(held_out: HeldOut, predictions: Array) -> dict[str, float]:
    """Score one evaluation, and each part of the validation split."""
    return {
        name: score([metric], predictions[rows], held_out.labels[rows])[metric]
        for name, (metric, rows) in held_out.scores.items()
    }


def _values(held_out: HeldOut, predictions: Array) -> dict[str, Array]:
    """Return the values of one evaluation's scores by row, NaN where a row does not count."""
    found = {name: np.full(len(held_out.ids), np.nan) for name in held_out.scores}
    for name, (metric, rows) in held_out.scores.items():
        found[name][rows] = values(metric, predictions[rows], held_out.labels[rows])
    return found
