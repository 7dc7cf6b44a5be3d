"""Halves of the rows, and scores on the half that did not choose, beside cases by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from peft_study.findings.cross_fitting import SPLITS, cross_fit, halves

Array = NDArray[np.float64]


def identities(rows: int) -> list[str]:
    return [f"rte-{row}" for row in range(rows)]


def classes(rows: int) -> Array:
    return np.random.default_rng(0).choice(3, rows, p=[0.2, 0.5, 0.3]).astype(np.float64)


def everything(rows: int) -> NDArray[np.bool_]:
    return np.ones(rows, dtype=bool)


@pytest.mark.parametrize("rows", [8, 9, 277])
def test_halves_and_their_classes_are_as_large_as_each_other(rows: int) -> None:
    labels = classes(rows)
    found = halves(identities(rows), labels, list(labels))
    assert found.shape == (SPLITS, rows)
    for first in found:
        assert abs(first.sum() - (~first).sum()) <= 1
        for label in range(3):
            of = labels == label
            assert abs((first & of).sum() - (~first & of).sum()) <= 1
    assert len({first.tobytes() for first in found}) > 1


@pytest.mark.parametrize("grouped", [True, False])
def test_halves_depend_on_the_rows_and_not_on_their_order(grouped: bool) -> None:
    ids, labels = identities(50), classes(50)

    def found(order: NDArray[np.int64]) -> NDArray[np.bool_]:
        groups = [labels[row] if grouped else "all" for row in order]
        return halves([ids[row] for row in order], labels[order], groups)

    straight, order = np.arange(50), np.random.default_rng(1).permutation(50)
    assert np.array_equal(found(straight), found(straight))
    assert np.array_equal(found(order), found(straight)[:, order])


def test_halves_are_the_same_in_every_run() -> None:
    found = halves(list("abcdef"), np.zeros(6), list("xxyyyy"))
    told = ["".join("12"[int(not first)] for first in split) for split in found[:3]]
    assert told == ["121221", "122112", "121122"]


def test_halves_of_a_regression_pair_rows_by_their_label() -> None:
    labels = np.random.default_rng(0).permutation(41) / 8
    found = halves(identities(41), labels, ["all"] * 41)
    pairs = np.argsort(labels)[:40].reshape(20, 2)
    for first in found:
        assert (first[pairs].sum(axis=1) == 1).all()
    # Which of a pair comes first is chance.
    assert 0 < found[:, pairs[:, 0]].mean() < 1


def test_what_is_best_on_one_half_is_scored_on_the_other() -> None:
    labels = np.array([1.0, 1.0, 1.0, 1.0])
    predictions = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    first = np.array([[True, True, False, False]])
    scored = {"accuracy": ("accuracy", everything(4))}
    found, of_rows = cross_fit(predictions, labels, first, scored)
    # Either is wherever it was chosen at its best, and nothing elsewhere.
    assert found.scores == {"accuracy": 0.0}
    assert found.optimism == {"accuracy": 0.5}
    assert of_rows["accuracy"].tolist() == [0.0] * 4


def test_scores_and_values_by_hand() -> None:
    labels = np.ones(8)
    first = np.array([[True] * 4 + [False] * 4])
    # On the first half the second is better, on the other half the first.
    predictions = np.array(
        [[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]]
    )
    counted = np.array([True, True, False, False, True, True, True, False])
    scored = {"all": ("accuracy", everything(8)), "some": ("accuracy", counted)}
    found, of_rows = cross_fit(predictions, labels, first, scored)
    # The first, chosen on the second half, has 1/4 on the first half, 1/2 of those that count. The
    # second, chosen on the first half, has 2/4 on the second half, 2/3 of those that count.
    assert found.scores == pytest.approx({"all": 3 / 8, "some": 7 / 12})
    # Best on all rows are both, with 5/8, so the first: 1/4 and 1, or 1/2 and 1.
    assert found.optimism == pytest.approx({"all": 5 / 8 - 3 / 8, "some": 3 / 4 - 7 / 12})
    half = [3 / 8 + deviation for deviation in (0.75, -0.25, -0.25, -0.25)]
    other = [3 / 8 + deviation for deviation in (0.5, 0.5, -0.5, -0.5)]
    assert of_rows["all"] == pytest.approx(np.array(half + other))
    # Five rows count: a row of the two weighs 5/2 halves, one of the three 5/3.
    half = [7 / 12 + 5 / 4 * deviation for deviation in (0.5, -0.5)]
    other = [7 / 12 + 5 / 6 * deviation for deviation in (1 / 3, 1 / 3, -2 / 3)]
    expected = np.array([*half, np.nan, np.nan, *other, np.nan])
    assert of_rows["some"] == pytest.approx(expected, nan_ok=True)
    assert np.nanmean(of_rows["some"]) == pytest.approx(7 / 12)


def test_predictions_of_two_evaluations_are_not_pooled() -> None:
    rng, first = np.random.default_rng(0), np.arange(40) < 20
    labels = rng.standard_normal(40)
    noise = rng.standard_normal(40)
    # One is best on the first half, the other, on a scale of its own, on the second half.
    one = labels + np.where(first, 0.0, 0.5) * noise
    other = 1000 + 10 * (labels + np.where(first, 0.5, 0.0) * noise)
    scored = {"pearson": ("pearson", everything(40))}
    found, _ = cross_fit(np.stack([one, other]), labels, first[None], scored)

    def pearson(predictions: Array, rows: NDArray[np.bool_]) -> float:
        return float(stats.pearsonr(predictions[rows], labels[rows])[0])

    expected = (pearson(other, first) + pearson(one, ~first)) / 2
    assert found.scores["pearson"] == pytest.approx(expected)
    pooled = np.where(first, other, one)
    assert abs(pearson(pooled, everything(40))) < 0.5 < expected


def test_a_single_evaluation_is_not_optimistic() -> None:
    labels = np.tile([0.0, 1.0], 50)
    predictions = np.where(np.random.default_rng(0).random((1, 100)) < 0.7, labels, 1 - labels)
    first_halves = halves(identities(100), labels, list(labels))
    scored = {"accuracy": ("accuracy", everything(100))}
    found, of_rows = cross_fit(predictions, labels, first_halves, scored)
    right = predictions[0] == labels
    assert found.scores["accuracy"] == pytest.approx(right.mean())
    assert found.optimism["accuracy"] == pytest.approx(0.0)
    # The values vary as those of the plain score do.
    assert of_rows["accuracy"].std() == pytest.approx(right.std(), rel=0.02)


def test_the_best_of_equal_evaluations_is_optimistic_and_its_cross_fitted_score_is_not() -> None:
    rng, rows, quality = np.random.default_rng(0), 200, 0.7
    labels = np.tile([0.0, 1.0], rows // 2)
    first_halves = halves(identities(rows), labels, list(labels))
    scored = {"accuracy": ("accuracy", everything(rows))}
    runs = []
    for _ in range(30):
        predictions = np.where(rng.random((20, rows)) < quality, labels, 1 - labels)
        runs.append(cross_fit(predictions, labels, first_halves, scored)[0])
    assert all(run.optimism["accuracy"] > 0 for run in runs)
    assert np.mean([run.optimism["accuracy"] for run in runs]) > 0.03
    assert np.mean([run.scores["accuracy"] for run in runs]) == pytest.approx(quality, abs=0.01)
