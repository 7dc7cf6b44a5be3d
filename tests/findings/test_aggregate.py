"""Scores and summaries against numbers computed by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import ROOT
from peft_study.data.tasks import TASKS, Task
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.findings.aggregate import aggregate, markdown_table, sweep_table
from peft_study.findings.evaluate import evaluate
from peft_study.findings.readme import shown_results, with_results
from peft_study.study import load_study

MAIN = {"movie_polarity": "accuracy"}
COUNTS = {"adapter": 294_912, "head": 592_130, "total": 887_042}


def write_run(directory: Path, evaluations: dict[int, list[int]]) -> None:
    """Write a run whose labels are 1, 1, 0, 0 and whose evaluations predict as given."""
    frames = [
        pd.DataFrame({"label": [1, 1, 0, 0], "prediction": p, "step": s, "epoch": s / 10})
        for s, p in evaluations.items()
    ]
    directory.mkdir(parents=True)
    pd.concat(frames).to_parquet(directory / "predictions.parquet")
    write_json(directory / "run.json", {"trainable": COUNTS})


@pytest.fixture
def cell(tmp_path: Path) -> dict[str, Any]:
    write_run(tmp_path / "runs/seed-1", {5: [1, 1, 0, 1], 10: [1, 1, 1, 1]})
    write_run(tmp_path / "runs/seed-2", {5: [1, 0, 0, 0], 10: [1, 1, 0, 0]})
    write_run(tmp_path / "runs/seed-7", {5: [1, 1, 1, 1], 10: [0, 0, 1, 1]})
    splits = {"train": {"rows": 9, "sha256_of_ids": "ab", "labels": {}}}
    write_json(
        tmp_path / "prepared/summary.json",
        {"baseline": {"accuracy": 0.5, "f1": 0.0}, "splits": splits},
    )
    config = {
        "task": "movie_polarity",
        "task_definition": asdict(TASKS["movie_polarity"]),
        "method": "lora",
        "seeds": [1, 2, 7],
        "train": {"report": "best"},
    }
    return evaluate(config, tmp_path / "runs", tmp_path / "prepared")


def test_evaluate_finds_first_best_and_last(cell: dict[str, Any]) -> None:
    found = {
        seed: (run["best"]["step"], *(run[name]["accuracy"] for name in ("first", "best", "last")))
        for seed, run in cell["seeds"].items()
    }
    assert found == {"1": (5, 0.75, 0.75, 0.5), "2": (10, 0.75, 1, 1), "7": (5, 0.5, 0.5, 0)}
    assert cell["seeds"]["1"]["best"]["f1"] == pytest.approx(0.8)
    assert cell["trainable"] == COUNTS
    assert cell["data"] == {"train": {"rows": 9, "sha256_of_ids": "ab"}}


@pytest.mark.parametrize(("report", "median", "std"), [("best", 0.75, 0.25), ("last", 0.5, 0.5)])
def test_aggregate_is_median_and_sample_deviation(
    cell: dict[str, Any], report: str, median: float, std: float
) -> None:
    config = {"tasks": ["movie_polarity"], "methods": ["lora"]}
    summary = aggregate(config, {("lora", "movie_polarity"): cell | {"report": report}})
    found = summary["movie_polarity"]["lora"]
    assert found["accuracy"] == {
        **{"median": median, "std": pytest.approx(std), "n": 3},
        # First 0.75, 0.75, 0.5; last 0.5, 1, 0: whichever is reported.
        **{"cv_first": pytest.approx(0.2165064), "cv_last": pytest.approx(1.0)},
    }
    assert found["trainable"] == COUNTS
    assert summary["movie_polarity"]["baseline"] == {"accuracy": 0.5, "f1": 0.0}


def test_one_seed_has_no_deviation(cell: dict[str, Any]) -> None:
    cell["seeds"] = {"1": cell["seeds"]["1"]}
    config = {"tasks": ["movie_polarity"], "methods": ["lora"]}
    summary = aggregate(config, {("lora", "movie_polarity"): cell})
    found = summary["movie_polarity"]["lora"]["accuracy"]
    assert found == {"median": 0.75, "std": None, "n": 1, "cv_first": None, "cv_last": None}
    assert "| 75.0 |" in markdown_table(summary, MAIN)


def test_table(cell: dict[str, Any]) -> None:
    config = {"tasks": ["movie_polarity"], "methods": ["lora"]}
    table = markdown_table(aggregate(config, {("lora", "movie_polarity"): cell}), MAIN)
    assert table.splitlines() == [
        "| method | trained: adapter + head | movie_polarity (accuracy) |",
        "| --- | ---: | ---: |",
        "| LoRA (ours) | 294,912 + 592,130 | 75.0 ± 25.0 |",
        "| majority class or mean | 0 | 50.0 |",
    ]


def test_a_cell_without_results_is_a_gap(cell: dict[str, Any]) -> None:
    config = {"tasks": ["movie_polarity", "rte"], "methods": ["lora", "full_ft"]}
    summary = aggregate(config, {("lora", "movie_polarity"): cell})
    assert summary["rte"] == {}
    assert set(summary["movie_polarity"]) == {"baseline", "lora"}
    table = markdown_table(summary, MAIN | {"rte": "accuracy"}).splitlines()
    assert table[2:] == [
        "| LoRA (ours) | 294,912 + 592,130 | 75.0 ± 25.0 | – |",
        "| majority class or mean | 0 | 50.0 | – |",
    ]


def test_sweep_is_a_row_per_cell_and_metric(cell: dict[str, Any]) -> None:
    rows = sweep_table(["query-r1", "query+value-r64"], lambda _: cell)
    assert [(r["weights"], r["rank"], r["metric"]) for r in rows] == [
        ("query", 1, "accuracy"),
        ("query", 1, "f1"),
        ("query+value", 64, "accuracy"),
        ("query+value", 64, "f1"),
    ]
    assert rows[2] | COUNTS == rows[2] | COUNTS | {"median": 0.75, "std": 0.25, "n": 3}
    assert rows[0]["trainable_total"] == COUNTS["total"]
    assert rows[0]["task"] == "movie_polarity"


def test_parts_of_the_validation_split_are_scored_apart_and_together(tmp_path: Path) -> None:
    """MNLI: the LoRA paper reports matched and mismatched rows together."""
    task = Task(("a", "b"), ("x", "y"), ("accuracy",), parts=("matched", "mismatched"))
    frame = pd.DataFrame(
        {
            "id": ["matched:1", "matched:2", "matched:3", "mismatched:1"],
            "label": [1, 1, 0, 0],
            "prediction": [1, 1, 1, 0],
            "step": 5,
            "epoch": 1.0,
        }
    )
    (tmp_path / "runs/seed-1").mkdir(parents=True)
    frame.to_parquet(tmp_path / "runs/seed-1/predictions.parquet")
    write_json(tmp_path / "runs/seed-1/run.json", {"trainable": COUNTS})
    write_json(tmp_path / "prepared/summary.json", {"baseline": {"accuracy": 0.5}, "splits": {}})
    config = {
        "task": "mnli",
        "task_definition": asdict(task),
        "method": "lora",
        "seeds": [1],
        "train": {"report": "best"},
    }
    found = evaluate(config, tmp_path / "runs", tmp_path / "prepared")["seeds"]["1"]["best"]
    assert found["accuracy"] == 0.75
    assert found["accuracy_matched"] == pytest.approx(2 / 3)
    assert found["accuracy_mismatched"] == 1.0


def test_the_readme_shows_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = shown_results(
        read_json(ROOT / "metrics/summary.json"),
        load_study(ROOT / "params.yaml").main_metrics,
        read_json(ROOT / "metrics/claims.json"),
        read_json(ROOT / "plots/figures.json"),
    )
    assert with_results(readme, results) == readme
    assert "](plots/svg/scores.svg)" in results
    with pytest.raises(StudyError, match="markers"):
        with_results("no markers", results)
