"""What rows add to a score: their mean is the score, and they move as leaving a row out does."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from peft_study.data.metrics import METRICS, score
from peft_study.findings.influence import VALUES, values

Array = NDArray[np.float64]
CORRELATIONS = ("pearson", "spearman")
Pairs = list[tuple[int, int]]


def arrays(pairs: Pairs, scale: float = 1.0) -> tuple[Array, Array]:
    predictions, labels = np.array(pairs, dtype=np.float64).T * scale
    return predictions, labels


def pairs(largest: int) -> st.SearchStrategy[Pairs]:
    number = st.integers(0, largest)
    return st.lists(st.tuples(number, number), min_size=1, max_size=30)


def test_every_metric_has_values() -> None:
    assert set(VALUES) == set(METRICS)


@given(pairs(1))
@example([(0, 0), (0, 1)])  # predicts nothing
@example([(0, 0), (1, 0)])  # there is nothing to predict
@example([(0, 0), (0, 0)])  # neither
@example([(1, 1), (1, 0), (1, 1)])
def test_the_mean_of_the_values_is_the_score_of_two_classes(found: Pairs) -> None:
    for metric in METRICS:
        if metric not in CORRELATIONS:
            check(metric, *arrays(found))


@given(pairs(3))
@example([(2, 0), (2, 1), (2, 2)])
@example([(0, 2), (1, 2)])
def test_the_mean_of_the_values_is_the_score_of_more_classes(found: Pairs) -> None:
    for metric in ("accuracy", "matthews", "precision_macro", "recall_macro", "f1_macro"):
        check(metric, *arrays(found))


@given(pairs(9))
@example([(5, 1), (5, 2), (5, 3)])
@example([(1, 4), (2, 4), (3, 4)])
@example([(7, 7)])
def test_the_mean_of_the_values_is_the_score_of_a_regression(found: Pairs) -> None:
    for metric in CORRELATIONS:
        check(metric, *arrays(found, scale=0.5))


def check(metric: str, predictions: Array, labels: Array) -> None:
    of_rows = values(metric, predictions, labels)
    assert of_rows.shape == labels.shape
    expected = score((metric,), predictions, labels)[metric]
    assert of_rows.mean() == pytest.approx(expected, abs=1e-9), metric


def pseudo_values(metric: str, predictions: Array, labels: Array) -> Array:
    """Return the jackknife's: n x the score of all rows - (n - 1) x that of all rows but one."""
    n, rows = len(labels), np.arange(len(labels))
    whole = score((metric,), predictions, labels)[metric]
    without = [
        score((metric,), predictions[rows != row], labels[rows != row])[metric] for row in rows
    ]
    return n * whole - (n - 1) * np.array(without)


@pytest.mark.parametrize(("metric", "classes"), [*((m, 2) for m in METRICS), ("matthews", 3)])
def test_values_are_those_of_the_jackknife(metric: str, classes: int) -> None:
    rng, rows = np.random.default_rng(0), 300
    labels: Array
    if metric in CORRELATIONS:
        labels = rng.integers(0, 26, rows) / 5  # with ties, as ratings have
        predictions = labels + rng.standard_normal(rows)
    else:
        shares = [0.3, 0.7] if classes == 2 else [0.2, 0.5, 0.3]
        labels = rng.choice(classes, rows, p=shares).astype(np.float64)
        other = rng.integers(0, classes, rows)
        predictions = np.where(rng.random(rows) < 0.6, labels, other)
    found = values(metric, predictions, labels)
    expected = pseudo_values(metric, predictions, labels)
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert found.std() / expected.std() == pytest.approx(1.0, abs=0.02)
