"""Scores and histories of runs against numbers computed by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import builders
from conftest import LORA, make_config
from peft_study.data.tasks import TASKS, Task
from peft_study.files import read_record, write_json
from peft_study.findings.curves import read_histories
from peft_study.findings.evaluate import (
    COLUMNS,
    evaluate,
    evaluate_cells,
    evaluate_variants,
    write_swept_histories,
)
from peft_study.findings.results import load_cells, load_sweep, load_values
from peft_study.records.scores import Cell, Counts, Gap, Rows
from peft_study.records.variants import VariantRuns
from peft_study.run_config import CellConfig
from peft_study.stage_configs import VariantCell

COUNTS = Counts(294_912, 592_130, 887_042)
CELL = CellConfig(make_config("lora", Path("encoder")), seeds=(1, 2, 7))
TASK = CELL.run.task


def write_run(directory: Path, frame: pd.DataFrame) -> None:
    """Write a run that predicted `frame`, its second evaluation after twice the time."""
    directory.mkdir(parents=True)
    frame.to_parquet(directory / "predictions.parquet")
    write_json(directory / "run.json", {"trainable": COUNTS})
    steps = frame[["step", "epoch"]].drop_duplicates()
    seconds = steps.assign(train_seconds=steps["step"] / 2)
    seconds.to_csv(directory / "timings.csv", index=False)
    history = steps.assign(accuracy=steps["step"] / 100, train_loss=0.5, validation_loss=0.25)
    history.to_csv(directory / "history.csv", index=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the prepared task, and runs whose labels are 1, 1, 0, 0."""
    for seed, evaluations in {
        1: {5: [1, 1, 0, 1], 10: [1, 1, 1, 1]},
        2: {5: [1, 0, 0, 0], 10: [1, 1, 0, 0]},
        7: {5: [1, 1, 1, 1], 10: [0, 0, 1, 1]},
    }.items():
        frames = [
            pd.DataFrame(
                {"id": list("abcd"), "label": [1, 1, 0, 0], "prediction": p}
                | {"step": s, "epoch": s / 10}
            )
            for s, p in evaluations.items()
        ]
        write_run(tmp_path / "runs" / TASK / f"seed-{seed}", pd.concat(frames))
    splits = {"train": {"rows": 9, "sha256_of_ids": "ab", "labels": {}}}
    summary = {"baseline": {"accuracy": 0.5, "f1": 0.0}, "splits": splits}
    write_json(tmp_path / "prepared" / TASK / "summary.json", summary)
    return tmp_path


def evaluated(folder: Path, cell: CellConfig = CELL) -> tuple[Cell, pd.DataFrame]:
    """Score a cell as its stage does; return its scores and histories as they are read again."""
    metrics = folder / "metrics"
    evaluate_cells({TASK: cell}, folder / "runs", folder / "prepared", metrics, "lora")
    found = read_record(metrics / f"runs/lora/{TASK}.json", Cell)
    return found, read_histories(metrics / "histories/lora.csv")


def test_first_best_and_last_are_found_and_histories_have_a_row_each(folder: Path) -> None:
    weights = folder / "runs" / TASK / "seed-2/adapter/adapter_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"")
    cell, table = evaluated(folder)
    found = {
        seed: (run.best.step, *(e.scores["accuracy"] for e in (run.first, run.best, run.last)))
        for seed, run in cell.seeds.items()
    }
    assert found == {"1": (5, 0.75, 0.75, 0.5), "2": (10, 0.75, 1, 1), "7": (5, 0.5, 0.5, 0)}
    assert cell.seeds["1"].best.scores["f1"] == pytest.approx(0.8)
    assert (cell.trainable, cell.report, cell.failed) == (COUNTS, "best", {})
    assert cell.data == {"train": Rows(9, "ab")}
    assert cell.baseline == {"accuracy": 0.5, "f1": 0.0}
    assert list(table.columns) == COLUMNS
    assert table["seed"].tolist() == [1, 1, 2, 2, 7, 7]
    sha256_of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    expected = [TASK, "lora", "query+value", 4, 2, 10, 1.0, "accuracy", 0.1, 0.5, 0.25, 5.0]
    assert table.iloc[3].tolist() == [*expected, sha256_of_nothing]
    assert table.iloc[0]["adapter"] == ""


def test_a_cell_with_a_failed_run_is_a_gap_and_has_no_history(folder: Path) -> None:
    failed = folder / "runs" / TASK / "seed-2"
    for file in failed.iterdir():
        file.unlink()
    write_json(failed / "run.json", {"trainable": COUNTS, "failure": "the loss is nan"})
    cell, table = evaluated(folder)
    assert cell.failed == {"2": "the loss is nan"}
    assert list(cell.seeds) == ["1", "7"]
    assert table.empty
    study = builders.study(("lora", "full_ft"), {TASK: "accuracy"})
    cells, gaps = load_cells(study, folder / "metrics")
    assert cells == {}
    assert gaps == [
        Gap("lora", TASK, "seed 2: the loss is nan"),
        Gap("full_ft", TASK, "it was not evaluated"),
    ]


def test_cells_of_the_sweep_bear_their_weights_and_rank(folder: Path) -> None:
    runs, metrics = folder / "runs", folder / "metrics"
    sound, gone = (f"sweep/{name}" for name in ("query-r4", "query+value-r4"))
    (runs / "sweep").mkdir()
    (runs / TASK).rename(runs / sound)
    write_json(runs / gone / "seed-1/run.json", {"failure": "the loss is nan"})
    query = replace(LORA, targets=("query",))
    configs = {
        sound: replace(CELL, run=replace(CELL.run, settings=query)),
        gone: replace(CELL, seeds=(1,)),
    }
    data = str(folder / "prepared" / TASK)
    cells = {place: VariantCell(config, data, None, "best") for place, config in configs.items()}
    found = evaluate_variants(cells, runs, metrics / "rows/variants")
    write_json(metrics / "runs/variants.json", VariantRuns(found))
    write_swept_histories(cells, runs, metrics / "histories/sweep.csv")
    (cell,) = load_sweep(metrics)  # the other one failed
    assert (cell.weights, cell.rank, list(cell.seeds)) == (("query",), 4, ["1", "2", "7"])
    assert load_values(cell, metrics)["accuracy"].shape == (3, 4)
    assert set(read_histories(metrics / "histories/sweep.csv")["weights"]) == {"query"}


def test_which_evaluation_counts_is_the_variants_own(folder: Path) -> None:
    cell = VariantCell(CELL, str(folder / "prepared" / TASK), None, "last")
    (folder / "runs/ledger").mkdir()
    (folder / "runs" / TASK).rename(folder / "runs/ledger/last")
    found = evaluate_variants({"ledger/last": cell}, folder / "runs", folder / "rows")
    (scored,) = found.values()
    assert (scored.report, scored.judged, scored.weights) == ("last", "last", ())
    assert scored.scores("accuracy") == {"1": 0.5, "2": 1.0, "7": 0.0}


def test_parts_of_the_validation_split_are_scored_apart_and_together(tmp_path: Path) -> None:
    """MNLI: the LoRA paper reports matched and mismatched rows together."""
    task = Task(("a", "b"), ("x", "y"), ("accuracy",), parts=TASKS["mnli"].parts)
    ids = ["matched:1", "matched:2", "matched:3", "mismatched:1", "mismatched:2"]
    rows: dict[str, Any] = {"id": ids, "label": [1, 1, 0, 0, 1], "prediction": [1, 1, 1, 0, 1]}
    rows |= {"step": 5, "epoch": 1.0}
    write_run(tmp_path / "runs/seed-1", pd.DataFrame(rows))
    write_json(tmp_path / "summary.json", {"baseline": {"accuracy": 0.5}, "splits": {}})
    cell = CellConfig(replace(CELL.run, definition=task), seeds=(1,))
    found = evaluate(cell, tmp_path / "runs", tmp_path, tmp_path / "rows").seeds["1"].best.scores
    assert found["accuracy"] == 0.8
    assert found["accuracy_matched"] == pytest.approx(2 / 3)
    assert found["accuracy_mismatched"] == 1.0
