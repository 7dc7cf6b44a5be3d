"""Stability and iso-accuracy from made-up histories."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pytest

import builders
from peft_study.files import read_record, write_json
from peft_study.findings import curves
from peft_study.findings.curves import iso_accuracy, over_seeds, stability
from peft_study.findings.evaluate import COLUMNS
from peft_study.records.costs import EnergyCost, EnergySource, Recipe
from peft_study.records.scores import CurvePoint, EqualScoreRun, StabilityPoint

Row = TypeVar("Row")

SCORES = {  # by method and seed, at the ends of half an epoch each
    "lora": {1: [0.50, 0.70, 0.80, 0.79], 2: [0.60, 0.65, 0.70, 0.78]},
    "full_ft": {1: [0.70, 0.82, 0.84, 0.83], 2: [0.72, 0.80, 0.79, 0.81]},
    "adapter_h": {1: [0.10, 0.20, 0.30, 0.40], 2: [0.60, 0.790, 0.60, 0.60]},
}
STUDY = builders.study(tuple(SCORES), {"movie_polarity": "accuracy"})
# What an epoch of LoRA takes was measured, and of no other method.
LORA_COST = EnergyCost(Recipe("lora"), joules_per_step=1.0, joules_per_epoch=8.0, watts=4.0)
COSTS = builders.task_profile("movie_polarity", energy=(LORA_COST,))
PROFILE = builders.profile(COSTS, energy=EnergySource("RAPL", None))


def write(folder: Path, method: str, weights: str = "", rank: int = 0) -> None:
    """Write the histories of a method: ten steps and five seconds of training an evaluation."""
    tables = [
        pd.DataFrame({"step": [10, 20, 30, 40], "epoch": [0.5, 1.0, 1.5, 2.0], "score": scores})
        .assign(train_seconds=[5.0, 10.0, 16.0, 22.0], task="movie_polarity", method=method)
        .assign(seed=seed, metric="accuracy", train_loss=0.5, validation_loss=0.5, adapter="")
        .assign(weights=weights, rank=rank)
        for seed, scores in SCORES[method].items()
    ]
    name = "sweep" if weights else method
    pd.concat(tables)[COLUMNS].to_csv(folder / f"{name}.csv", index=False)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Return the curves of `SCORES`."""
    for method in SCORES:
        write(tmp_path, method)
    return curves.learning_curves(STUDY, tmp_path)


def test_they_hold_every_evaluation_in_the_studys_order(table: pd.DataFrame) -> None:
    assert len(table) == 3 * 2 * 4
    assert list(dict.fromkeys(table["method"])) == list(SCORES)
    row = table[(table["method"] == "full_ft") & (table["seed"] == 2)].iloc[1]
    assert (row["epoch"], row["score"], row["train_seconds"]) == (1.0, 0.80, 10.0)


def again(rows: Iterable[Row], kind: type[Row], folder: Path) -> list[Row]:
    """Return the rows as they are once written and read."""
    write_json(folder / "rows.json", list(rows))
    return read_record(folder / "rows.json", list[kind])  # type: ignore[valid-type]


def test_a_curve_is_the_mean_and_range_of_its_seeds(table: pd.DataFrame, tmp_path: Path) -> None:
    rows = {(row.method, row.step): row for row in again(over_seeds(table), CurvePoint, tmp_path)}
    assert len(rows) == 3 * 4
    found = rows["lora", 10]
    assert (found.metric, found.epoch, found.n) == ("accuracy", 0.5, 2)
    assert (found.mean, found.low, found.high) == pytest.approx((0.55, 0.5, 0.6))
    assert (found.train_loss, found.validation_loss) == pytest.approx((0.5, 0.5))
    assert (found.task, found.weights, found.rank) == ("movie_polarity", (), None)


def test_a_cell_without_a_history_is_left_out(table: pd.DataFrame, tmp_path: Path) -> None:
    """Of a method whose cells all failed there is a table without rows."""
    pd.DataFrame(columns=COLUMNS).to_csv(tmp_path / "full_ft.csv", index=False)
    found = curves.learning_curves(STUDY, tmp_path)
    assert set(found["method"]) == {"lora", "adapter_h"}
    assert iso_accuracy(found, STUDY, None).runs == ()
    assert len(found) == len(table) - 8
    assert over_seeds(found) == [row for row in over_seeds(table) if row.method != "full_ft"]
    assert stability(found) == [row for row in stability(table) if row.method != "full_ft"]
    assert len(list(curves.epoch_seconds(found))) == 2


def test_a_sweeps_curves_bear_its_weights_and_ranks_and_it_alone_has_no_others(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    write(tmp_path, "lora", weights="query+value", rank=4)
    found = over_seeds(curves.read_histories(tmp_path / "sweep.csv"), swept=True)
    ours = over_seeds(table[table["method"] == "lora"])
    assert found == [replace(row, weights=("query", "value"), rank=4) for row in ours]
    none = curves.learning_curves(replace(STUDY, methods=()), tmp_path)
    assert stability(none) == list(curves.epoch_seconds(none)) == over_seeds(none) == []
    iso = iso_accuracy(none, STUDY, None)
    assert (iso.runs, iso.seconds_per_epoch, iso.energy.reason) == ((), (), "no profile")


def test_stability_is_the_cv_over_seeds_at_every_evaluation(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    found = again(stability(table), StabilityPoint, tmp_path)
    rows = {(row.method, row.epoch): row for row in found}
    assert len(rows) == 3 * 4
    first = rows["lora", 0.5]
    known = pytest.approx((0.55, 0.0707107, 2), abs=1e-6)
    assert (first.mean, first.std, first.n) == known
    assert first.cv is None  # two seeds so far apart have no mean clearly above zero
    alone = stability(table[table["seed"] == 1])
    assert all(row.std is None and row.cv is None for row in alone)
    below_zero = table.assign(score=-table["score"])
    assert all(row.cv is None and row.std is not None for row in stability(below_zero))


def test_equal_scores_are_reached_when_they_are_first(table: pd.DataFrame, tmp_path: Path) -> None:
    iso = iso_accuracy(table, STUDY, PROFILE)
    assert (iso.margin, iso.energy) == (0.005, EnergySource("RAPL", None))
    found = {(row.method, row.seed): row for row in again(iso.runs, EqualScoreRun, tmp_path)}
    # The medians of the best: LoRA 0.79, full fine-tuning 0.825.
    assert all(row.target == pytest.approx(0.785) for row in found.values())
    assert vars(found["lora", 1]) | {"target": 0} == {
        **{"task": "movie_polarity", "method": "lora", "seed": 1, "target": 0},
        **{"reached": True, "step": 30, "epoch": 1.5, "seconds": 16.0, "joules": 12.0},
    }
    assert found["full_ft", 2].joules is None  # not measured
    assert found["full_ft", 2].epoch == 1.0
    assert found["adapter_h", 2].epoch == 1.0  # though it falls below it again
    for never in (found["lora", 2], found["adapter_h", 1]):
        assert not never.reached
        assert never.epoch is None
        assert never.seconds is never.joules is None
    # What an epoch of another task takes says nothing of this one's.
    other = replace(COSTS, task="tweet_rating")
    elsewhere = iso_accuracy(table, STUDY, replace(PROFILE, tasks=(other,)))
    assert {row.joules for row in elsewhere.runs} == {None}
    both = iso_accuracy(table, STUDY, replace(PROFILE, tasks=(other, COSTS)))
    assert both.runs == iso.runs
    assert iso_accuracy(table[table["method"] != "full_ft"], STUDY, PROFILE).runs == ()
    # An epoch lasts from end to end.
    rows = {row.method: row for row in iso_accuracy(table, STUDY, None).seconds_per_epoch}
    lasts = rows["lora"]
    assert (lasts.n, lasts.mean, lasts.std) == pytest.approx((4, 11, 1.154701), abs=1e-6)
