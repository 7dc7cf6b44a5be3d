"""Metrics against values computed by hand."""

import numpy as np
import pytest

from peft_study.data.metrics import METRICS, score
from peft_study.data.tasks import TASKS


def test_classification_by_hand() -> None:
    # true positives 2, false positives 1, false negatives 1, true negatives 2
    predictions, labels = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])
    names = ("accuracy", "precision", "recall", "f1", "matthews")
    found = score(names, predictions, labels)
    assert found == pytest.approx(
        {"accuracy": 4 / 6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "matthews": 3 / 9}
    )


def test_more_than_two_classes_by_hand() -> None:
    predictions, labels = np.array([0, 0, 1, 1, 2, 0]), np.array([0, 1, 1, 1, 2, 2])
    # precision 1/3, 2/2, 1/1; recall 1/1, 2/3, 1/2; F1 1/2, 4/5, 2/3
    found = score(("precision_macro", "recall_macro", "f1_macro"), predictions, labels)
    means = (1 / 3 + 1 + 1) / 3, (1 + 2 / 3 + 1 / 2) / 3, (1 / 2 + 4 / 5 + 2 / 3) / 3
    assert list(found.values()) == pytest.approx(means)


def test_every_classification_has_precision_recall_and_f1() -> None:
    for name, task in TASKS.items():
        mean = "_macro" if len(task.labels or ()) > 2 else ""
        found = {f"{metric}{mean}" for metric in ("precision", "recall", "f1")}
        assert (found <= set(task.metrics)) == (task.labels is not None), name
        main = {"cola": "matthews"}.get(name, "accuracy" if task.labels else "pearson")
        assert task.metrics[0] == main


def test_correlations_by_hand() -> None:
    labels = np.array([1.0, 2.0, 3.0])
    found = score(("pearson", "spearman"), np.array([1.0, 4.0, 2.0]), labels)
    # deviations (-4/3, 5/3, -1/3) and (-1, 0, 1): 1 / sqrt(42/9 * 2); ranks (1, 3, 2)
    assert found == pytest.approx({"pearson": 1 / np.sqrt(42 / 9 * 2), "spearman": 0.5})


def test_a_constant_correlates_with_nothing() -> None:
    found = score(("pearson", "spearman"), np.full(4, 0.3), np.arange(4.0))
    assert found == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_perfect_predictions_score_one(metric: str) -> None:
    labels = np.array([0, 1, 1, 0])
    assert score([metric], labels, labels) == {metric: pytest.approx(1.0)}


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="shapes"):
        score(("accuracy",), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        score(("pearson",), np.array([0.0, np.nan]), np.zeros(2))
