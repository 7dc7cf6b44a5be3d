"""From the predictions of a method's runs to its scores, and their histories in one table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from peft_study.data.draws import rows_of
from peft_study.data.metrics import score
from peft_study.data.tasks import Task
from peft_study.files import read_json, replacing, sha256, write_json
from peft_study.records.scores import Cell, Counts, Evaluation, Rows, RunScores
from peft_study.run_config import ADAPTER, WEIGHTS_FILE, CellConfig, LoraSettings

Configs = dict[str, CellConfig]  # by the name of their folder of runs

COLUMNS = [
    *("task", "method", "weights", "rank", "seed", "step", "epoch", "metric", "score"),
    *("train_loss", "validation_loss", "train_seconds", "adapter"),
]


def evaluate_cells(
    configs: Configs, runs: Path, prepared: Path, metrics: Path, method: str
) -> None:
    """Score the cells of a method, by task, and write `runs/<method>/` and its histories."""
    for task, config in configs.items():
        cell = evaluate(config, runs / task, prepared / task)
        write_json(metrics / "runs" / method / f"{task}.json", cell)
    _write_histories(configs, runs, metrics / "histories" / f"{method}.csv")


def evaluate_sweep(configs: Configs, runs: Path, prepared: Path, metrics: Path) -> None:
    """Score the cells of the sweep, by name, and write `runs/sweep.json` and their histories."""
    cells = {}
    for name, config in configs.items():
        cell, lora = evaluate(config, runs / name, prepared / config.run.task), _lora(config)
        cells[name] = replace(cell, weights=lora.targets, rank=lora.r) if lora else cell
    write_json(metrics / "runs/sweep.json", cells)
    _write_histories(configs, runs, metrics / "histories/sweep.csv")


def evaluate(config: CellConfig, runs: Path, prepared: Path) -> Cell:
    """Score every run of a cell from its stored predictions.

    `runs` has a folder `seed-<n>/` for each seed, `prepared` a summary of which rows were used.
    """
    summary, task = read_json(prepared / "summary.json"), config.run.definition
    seeds, failed, counts = {}, {}, Counts(0, 0, 0)
    for seed in config.seeds:
        directory = runs / f"seed-{seed}"
        run = read_json(directory / "run.json")
        if "failure" in run:
            failed[str(seed)] = run["failure"]
            continue
        counts = Counts(**run["trainable"])
        frame = pd.read_parquet(directory / "predictions.parquet")
        evaluations = [
            Evaluation(int(str(step)), float(group["epoch"].iloc[0]), _score(task, group))
            for step, group in frame.groupby("step")
        ]
        # Of equals the earliest is the best.
        best = max(evaluations, key=lambda found: found.scores[task.metrics[0]])
        seeds[str(seed)] = RunScores(evaluations[0], best, evaluations[-1])
    data = {}
    for seed in config.seeds:
        own = rows_of(prepared, seed)
        for split, found in read_json(own / "summary.json")["splits"].items():
            name = f"train seed {seed}" if split == "train" and own != prepared else split
            data[name] = Rows(found["rows"], found["sha256_of_ids"])
    about = config.run.task, config.run.method, config.run.train.report, summary["baseline"]
    return Cell(*about, data, counts, seeds, failed)


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


def _score(task: Task, group: pd.DataFrame) -> dict[str, float]:
    """Score one evaluation, and each part of the validation split, as `accuracy_matched`, say."""
    scores = score(task.metrics, group["prediction"].to_numpy(), group["label"].to_numpy())
    for part in task.parts:
        rows = group[group["id"].str.startswith(f"{part}:")]
        if len(rows):
            found = score(task.metrics, rows["prediction"].to_numpy(), rows["label"].to_numpy())
            scores |= {f"{metric}_{part}": value for metric, value in found.items()}
    return scores
