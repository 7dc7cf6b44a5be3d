"""Statistics beside scipy, and beside cases computed by hand."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import builders
from peft_study.findings import statistics
from peft_study.findings.statistics import paired
from peft_study.records.scores import Cell, Counts, Evaluation, Gap, RunScores
from peft_study.records.study import Report


def cell(
    best: list[float], last: list[float] | None = None, first: list[float] | None = None
) -> Cell:
    """Return scores of as many seeds."""
    about: dict[str, Any] = {"baseline": {"accuracy": 0.5, "f1": 0.0}}
    about["trainable"] = Counts(294_912, 592_130, 887_042)
    return builders.cell("lora", "rte", *best, first=first or best, last=last or best, **about)


# Three seeds' first, best and last evaluations.
MIXED = cell(first=[0.75, 0.75, 0.5], best=[0.75, 1.0, 0.5], last=[0.5, 1.0, 0.0])


def by_seed(values: Iterable[float]) -> dict[str, float]:
    return {str(n): value for n, value in enumerate(values)}


def test_a_cell_is_described_at_its_first_best_and_last_evaluation() -> None:
    found = cell([0.5, 0.6, 0.7], [0.5, 0.5, 0.65], [0.4, 0.4, 0.4])
    first, best, last = statistics.describe_cells({("lora", "rte"): found})
    assert [row.evaluation for row in (first, best, last)] == ["first", "best", "last"]
    assert vars(replace(best, low=0, high=0)) == pytest.approx(
        {"task": "rte", "method": "lora", "metric": "accuracy", "evaluation": "best", "n": 3}
        | {"median": 0.6, "std": 0.1, "mean": 0.6, "cv": 1 / 6, "min": 0.5, "max": 0.7}
        | {"low": 0, "high": 0}
    )
    assert (first.median, last.median) == (0.4, 0.5)
    assert last.mean == pytest.approx(0.55)
    assert best.low is not None
    assert best.high is not None
    assert 0.5 <= best.low < 0.6 < best.high <= 0.7
    # One seed has no spread.
    (row, *_) = statistics.describe_cells({("lora", "rte"): cell([0.5])})
    assert (row.std, row.cv, row.low, row.high) == (None,) * 4
    (negative, *_) = statistics.describe_cells({("lora", "cola"): cell([-0.1, 0.05])})
    assert negative.cv is None


@pytest.mark.parametrize(("report", "median", "std"), [("best", 0.75, 0.25), ("last", 0.5, 0.5)])
def test_the_summary_is_median_and_sample_deviation_and_nothing_else(
    report: Report, median: float, std: float
) -> None:
    study = builders.study(("lora",), {"rte": "accuracy"}, report=report)
    found = statistics.summarise(study, {("lora", "rte"): MIXED}, [])
    expected = {"median": median, "std": pytest.approx(std)}
    assert statistics.summary(study, found) == {"rte": {"lora": expected}}
    first, last = (row for row in found.cells if row.evaluation in ("first", "last"))
    # Whichever is reported.
    assert (first.cv, last.cv) == (pytest.approx(0.2165064), pytest.approx(1.0))
    assert found.baselines == {"rte": {"accuracy": 0.5, "f1": 0.0}}


def test_the_summary_of_one_seed_and_of_a_gap() -> None:
    study = builders.study(("lora", "full_ft"), {"rte": "accuracy", "mrpc": "f1"})
    gaps = [Gap("full_ft", "rte", "no results")]
    found = statistics.summarise(study, {("lora", "rte"): cell([0.75])}, gaps)
    assert statistics.summary(study, found) == {
        "rte": {"lora": {"median": 0.75, "std": None}},
        "mrpc": {},
    }
    assert found.gaps == tuple(gaps)


def test_sweep_is_a_row_per_cell_and_metric() -> None:
    both = {
        seed: RunScores(*(Evaluation(8, 1.0, e.scores | {"f1": 0.5}) for e in vars(run).values()))
        for seed, run in MIXED.seeds.items()
    }
    narrow = replace(MIXED, seeds=both, weights=("query",), rank=1)
    wide = replace(narrow, weights=("query", "value"), rank=64)
    rows = list(statistics.sweep_rows([narrow, wide, replace(cell([0.75]), rank=8)]))
    assert [(row.weights, row.rank, row.metric) for row in rows[:4]] == [
        (("query",), 1, "accuracy"),
        (("query",), 1, "f1"),
        (("query", "value"), 64, "accuracy"),
        (("query", "value"), 64, "f1"),
    ]
    assert vars(rows[2]) | {"weights": ""} == pytest.approx(
        {"task": "rte", "weights": "", "rank": 64, "metric": "accuracy", "n": 3}
        | {"median": 0.75, "std": 0.25, "cv_first": 0.2165064, "cv_last": 1.0}
        | {"trainable_adapter": 294_912, "trainable_head": 592_130, "trainable_total": 887_042}
    )
    alone = rows[4]
    assert (alone.n, alone.std, alone.cv_first, alone.cv_last) == (1, None, None, None)


def test_the_bootstrap_is_scipys_and_always_the_same() -> None:
    values = [0.71, 0.74, 0.69, 0.75, 0.70]
    expected = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(0))
    assert statistics.bootstrap_interval(values) == pytest.approx(
        tuple(expected.confidence_interval)
    )
    assert statistics.bootstrap_interval(values) == statistics.bootstrap_interval(values)
    assert statistics.bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_a_difference_by_hand() -> None:
    """Differences of 1, 2 and 3 hundredths: mean 2, std 1, error 1 / sqrt 3, t(2) = 4.3027."""
    found = paired(by_seed([0.51, 0.52, 0.53]), by_seed([0.50, 0.50, 0.50]), 0.02)
    reach = 4.302653 * 0.01 / math.sqrt(3)
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-7)
    assert found.detectable == pytest.approx(reach, abs=1e-7)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt 3
    assert found.p_equivalence == pytest.approx(0.5)  # the mean is the margin
    assert not found.equivalent


def test_a_difference_is_scipys_paired_test_and_equivalent_by_its_90_percent_interval() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        ours, theirs = rng.normal(0.80, 0.01, 5), rng.normal(0.80, 0.01, 5)
        found = paired(by_seed(ours), by_seed(theirs), 0.02)
        expected = stats.ttest_rel(ours, theirs)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
        interval = expected.confidence_interval(0.90)
        assert found.equivalent == (interval.low > -0.02 and interval.high < 0.02)


def test_seeds_are_paired_by_their_names() -> None:
    ours, theirs = {"1": 0.5, "2": 0.7, "3": 0.9}, {"3": 0.9, "2": 0.7}
    found = paired(ours, theirs, 0.02)
    assert (found.n, found.mean, found.p, found.equivalent) == (2, 0.0, None, True)
    alone = paired({"1": 0.5}, {"1": 0.4}, 0.02)
    assert alone.mean == pytest.approx(0.1)
    assert alone.low is alone.p is alone.equivalent is None


def test_methods_are_compared_with_their_references() -> None:
    methods = ("lora", "peft_lora", "adapter_h", "full_ft")
    cells = {(method, "rte"): cell([0.5, 0.6]) for method in methods}
    study = builders.study(methods, {"rte": "accuracy", "cola": "accuracy"})
    rows = list(statistics.compare_cells(cells | {("lora", "cola"): cell([0.5, 0.6])}, study))
    pairs = {(row.task, row.method, row.reference) for row in rows}
    assert pairs == {
        ("rte", "lora", "full_ft"),
        ("rte", "lora", "peft_lora"),
        ("rte", "peft_lora", "full_ft"),
        ("rte", "adapter_h", "full_ft"),
    }
    assert len(rows) == 2 * 4  # best and last


def test_nothing_is_averaged_over_a_gap() -> None:
    study = builders.study(("lora", "full_ft"), {"rte": "accuracy", "mrpc": "accuracy"})
    cells = {("lora", "rte"): cell([0.5, 0.6, 0.7]), ("lora", "mrpc"): cell([0.8, 0.9, 0.9])}
    cells |= {("full_ft", "rte"): cell([0.5, 0.6, 0.7])}
    rows = {row.method: row for row in statistics.averages(cells, study)}
    assert rows["lora"].mean_of_medians == pytest.approx(0.75)
    assert rows["full_ft"].mean_of_medians is None
    assert rows["full_ft"].gaps == ("mrpc",)
