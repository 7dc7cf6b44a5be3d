"""Stability and iso-accuracy from made-up histories."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from peft_study.findings.curves import (
    epoch_seconds,
    iso_accuracy,
    learning_curves,
    over_seeds,
    stability,
    sweep_curves,
)

SCORES = {  # by method and seed, at the ends of half an epoch each
    "lora": {1: [0.50, 0.70, 0.80, 0.79], 2: [0.60, 0.65, 0.70, 0.78]},
    "full_ft": {1: [0.70, 0.82, 0.84, 0.83], 2: [0.72, 0.80, 0.79, 0.81]},
    "adapter_h": {1: [0.10, 0.20, 0.30, 0.40], 2: [0.60, 0.790, 0.60, 0.60]},
}
CONFIG: dict[str, Any] = {
    "methods": list(SCORES),
    "main_metrics": {"movie_polarity": "accuracy"},
    "seeds": [1, 2],
}


@pytest.fixture
def curves(tmp_path: Path) -> pd.DataFrame:
    """Return the curves of `SCORES`: ten steps and five seconds of training an evaluation."""
    for method, runs in SCORES.items():
        for seed, scores in runs.items():
            folder = tmp_path / method / "movie_polarity" / f"seed-{seed}"
            folder.mkdir(parents=True)
            steps = [10, 20, 30, 40]
            history = {"step": steps, "epoch": [0.5, 1.0, 1.5, 2.0], "accuracy": scores}
            losses = dict.fromkeys(("train_loss", "validation_loss"), 0.5)
            pd.DataFrame(history).assign(**losses).to_csv(folder / "history.csv", index=False)
            seconds = {"step": steps, "train_seconds": [5.0, 10.0, 16.0, 22.0]}
            pd.DataFrame(seconds).to_csv(folder / "timings.csv", index=False)
    return learning_curves(CONFIG, tmp_path)


def test_curves_hold_every_evaluation_in_the_studys_order(curves: pd.DataFrame) -> None:
    assert len(curves) == 3 * 2 * 4
    assert list(dict.fromkeys(curves["method"])) == list(SCORES)
    row = curves[(curves["method"] == "full_ft") & (curves["seed"] == 2)].iloc[1]
    assert (row["epoch"], row["score"], row["train_seconds"]) == (1.0, 0.80, 10.0)


def test_a_curve_is_the_mean_and_the_range_of_its_seeds(curves: pd.DataFrame) -> None:
    rows = {(row["method"], row["step"]): row for row in json.loads(json.dumps(over_seeds(curves)))}
    assert len(rows) == 3 * 4
    assert rows["lora", 10] == pytest.approx(
        {"task": "movie_polarity", "method": "lora", "metric": "accuracy", "step": 10}
        | {"epoch": 0.5, "n": 2, "mean": 0.55, "low": 0.5, "high": 0.6}
        | {"train_loss": 0.5, "validation_loss": 0.5}
    )


def test_a_cell_that_lacks_a_run_is_left_out(curves: pd.DataFrame, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "full_ft/movie_polarity/seed-2")
    found = learning_curves(CONFIG, tmp_path)
    assert set(found["method"]) == {"lora", "adapter_h"}
    assert iso_accuracy(found, 0.005, {}) == []
    assert len(found) == len(curves) - 8


def test_the_sweeps_curves_bear_the_names_of_its_cells(
    curves: pd.DataFrame, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "lora/movie_polarity", tmp_path / "sweep/query-r4")
    sweep = {"task": "movie_polarity", "cells": ["query-r4", "query-r8"]}  # of which one failed
    found = sweep_curves(CONFIG | {"sweep": sweep}, tmp_path)
    assert set(found["method"]) == {"query-r4"}
    ours = curves[curves["method"] == "lora"]
    assert found["score"].tolist() == ours["score"].tolist()


def test_stability_is_the_cv_over_seeds_at_every_evaluation(curves: pd.DataFrame) -> None:
    found = json.loads(json.dumps(stability(curves)))
    rows = {(row["method"], row["epoch"]): row for row in found}
    assert len(rows) == 3 * 4
    first = rows["lora", 0.5]
    assert first["mean"] == pytest.approx(0.55)
    assert first["std"] == pytest.approx(0.0707107, abs=1e-6)
    assert first["cv"] == pytest.approx(0.128565, abs=1e-6)
    assert first["n"] == 2
    alone = stability(curves[curves["seed"] == 1])
    assert all(row["std"] is None and row["cv"] is None for row in alone)
    below_zero = curves.assign(score=-curves["score"])
    assert all(row["cv"] is None and row["std"] is not None for row in stability(below_zero))


def test_equal_scores_are_reached_when_they_are_first(curves: pd.DataFrame) -> None:
    rows = json.loads(json.dumps(iso_accuracy(curves, 0.005, {("movie_polarity", "lora"): 8.0})))
    found = {(row["method"], row["seed"]): row for row in rows}
    # The medians of the best: LoRA 0.79, full fine-tuning 0.825.
    assert all(row["target"] == pytest.approx(0.785) for row in rows)
    assert found["lora", 1] | {"target": 0} == {
        **{"task": "movie_polarity", "method": "lora", "seed": 1, "target": 0},
        **{"reached": True, "step": 30, "epoch": 1.5, "seconds": 16.0, "joules": 12.0},
    }
    assert found["full_ft", 2]["joules"] is None  # not measured
    assert found["full_ft", 2]["epoch"] == 1.0
    assert found["adapter_h", 2]["epoch"] == 1.0  # though it falls below it again
    for never in (found["lora", 2], found["adapter_h", 1]):
        assert not never["reached"]
        assert never["epoch"] is None
        assert never["seconds"] is never["joules"] is None
    assert iso_accuracy(curves[curves["method"] != "full_ft"], 0.005, {}) == []


def test_a_study_of_a_sweep_alone_has_no_curves(tmp_path: Path) -> None:
    curves = learning_curves(CONFIG | {"methods": []}, tmp_path)
    assert stability(curves) == epoch_seconds(curves) == over_seeds(curves) == []
    assert iso_accuracy(curves, 0.005, {}) == []


def test_an_epoch_lasts_from_end_to_end(curves: pd.DataFrame) -> None:
    rows = {row["method"]: row for row in epoch_seconds(curves)}
    assert rows["lora"]["n"] == 4
    assert rows["lora"]["mean"] == pytest.approx(11)
    assert rows["lora"]["std"] == pytest.approx(1.154701, abs=1e-6)
