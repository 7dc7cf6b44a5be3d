"""Statistics beside scipy, and beside cases computed by hand."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from peft_study.findings.statistics import (
    averages,
    bootstrap_interval,
    compare_cells,
    describe_cells,
    paired_difference,
)


def cell(best: list[float], last: list[float] | None = None) -> dict[str, Any]:
    """Return scores of as many seeds."""
    pairs = zip(best, last or best, strict=True)
    runs = {
        str(n): {"best": {"accuracy": b, "epoch": 1.0, "step": 8}, "last": {"accuracy": e}}
        for n, (b, e) in enumerate(pairs, 1)
    }
    return {"seeds": runs}


def by_seed(values: list[float]) -> dict[str, float]:
    return {str(n): value for n, value in enumerate(values)}


def test_a_cell_is_described_at_its_best_and_last_evaluation() -> None:
    rows = describe_cells({("lora", "rte"): cell([0.5, 0.6, 0.7], [0.5, 0.5, 0.65])})
    best, last = rows
    assert (best["evaluation"], last["evaluation"]) == ("best", "last")
    assert best | {"low": 0, "high": 0} == pytest.approx(
        {"task": "rte", "method": "lora", "metric": "accuracy", "evaluation": "best", "n": 3}
        | {"median": 0.6, "std": 0.1, "mean": 0.6, "cv": 1 / 6, "min": 0.5, "max": 0.7}
        | {"low": 0, "high": 0}
    )
    assert last["median"] == 0.5
    assert last["mean"] == pytest.approx(0.55)
    assert 0.5 <= best["low"] < 0.6 < best["high"] <= 0.7


def test_one_seed_has_no_spread() -> None:
    (row, _) = describe_cells({("lora", "rte"): cell([0.5])})
    assert [row[key] for key in ("std", "cv", "low", "high")] == [None] * 4
    (negative, _) = describe_cells({("lora", "cola"): cell([-0.1, 0.05])})
    assert negative["cv"] is None


def test_the_bootstrap_is_scipys_and_always_the_same() -> None:
    values = [0.71, 0.74, 0.69, 0.75, 0.70]
    expected = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(0))
    assert bootstrap_interval(values) == pytest.approx(tuple(expected.confidence_interval))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_a_difference_by_hand() -> None:
    """Differences of 1, 2 and 3 hundredths: mean 2, std 1, error 1 / sqrt 3, t(2) = 4.3027."""
    found = paired_difference(by_seed([0.51, 0.52, 0.53]), by_seed([0.50, 0.50, 0.50]), 0.02)
    reach = 4.302653 * 0.01 / math.sqrt(3)
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(0.02)
    assert (found["low"], found["high"]) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-7)
    assert found["detectable"] == pytest.approx(reach, abs=1e-7)
    assert found["p"] == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt 3
    assert found["p_equivalence"] == pytest.approx(0.5)  # the mean is the margin
    assert not found["equivalent"]


def test_a_difference_is_scipys_paired_test() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.8, 0.02, 5), rng.normal(0.79, 0.02, 5)
    found = paired_difference(by_seed(list(ours)), by_seed(list(theirs)), 0.05)
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_equivalent_means_that_the_90_percent_interval_lies_within_the_margin() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        ours, theirs = rng.normal(0.80, 0.01, 5), rng.normal(0.80, 0.01, 5)
        found = paired_difference(by_seed(list(ours)), by_seed(list(theirs)), 0.02)
        interval = stats.ttest_rel(ours, theirs).confidence_interval(0.90)
        within = interval.low > -0.02 and interval.high < 0.02
        assert found["equivalent"] == within


def test_seeds_are_paired_by_their_names() -> None:
    ours, theirs = {"1": 0.5, "2": 0.7, "3": 0.9}, {"3": 0.9, "2": 0.7}
    found = paired_difference(ours, theirs, 0.02)
    assert (found["n"], found["mean"], found["p"], found["equivalent"]) == (2, 0.0, None, True)
    alone = paired_difference({"1": 0.5}, {"1": 0.4}, 0.02)
    assert alone["mean"] == pytest.approx(0.1)
    assert alone["low"] is alone["p"] is alone["equivalent"] is None


def test_methods_are_compared_with_their_references() -> None:
    methods = ("lora", "peft_lora", "adapter_h", "full_ft")
    cells = {(method, "rte"): cell([0.5, 0.6]) for method in methods}
    rows = compare_cells(cells | {("lora", "cola"): cell([0.5, 0.6])}, 0.02)
    pairs = {(row["task"], row["method"], row["reference"]) for row in rows}
    assert pairs == {
        ("rte", "lora", "full_ft"),
        ("rte", "lora", "peft_lora"),
        ("rte", "peft_lora", "full_ft"),
        ("rte", "adapter_h", "full_ft"),
    }
    assert len(rows) == 2 * 4  # best and last


def test_nothing_is_averaged_over_a_gap() -> None:
    tasks = {"rte": "accuracy", "mrpc": "accuracy"}
    cells = {("lora", "rte"): cell([0.5, 0.6, 0.7]), ("lora", "mrpc"): cell([0.8, 0.9, 0.9])}
    cells |= {("full_ft", "rte"): cell([0.5, 0.6, 0.7])}
    rows = {r["method"]: r for r in averages(cells, ["lora", "full_ft"], tasks)}
    assert rows["lora"]["mean_of_medians"] == pytest.approx(0.75)
    assert rows["full_ft"]["mean_of_medians"] is None
    assert rows["full_ft"]["gaps"] == ["mrpc"]
