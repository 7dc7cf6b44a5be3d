"""GLUE's metrics, as fractions (1.0 is perfect)."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

Metric = Callable[[NDArray, NDArray], float]


def _correlation(correlate: Callable[..., tuple[float, float]]) -> Metric:
    def metric(predictions: NDArray, labels: NDArray) -> float:
        # Undefined for constants; a model that says the same of every input has found nothing.
        if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
            return 0.0
        return float(correlate(predictions, labels)[0])

    return metric


def _macro(of: Callable[..., float]) -> Metric:
    """Return the unweighted mean over the classes that occur in predictions or labels."""
    return lambda p, y: float(of(y, p, average="macro", zero_division=0.0))


METRICS: dict[str, Metric] = {
    "accuracy": lambda p, y: float(sk.accuracy_score(y, p)),
    "f1": lambda p, y: float(sk.f1_score(y, p, zero_division=0.0)),
    "precision": lambda p, y: float(sk.precision_score(y, p, zero_division=0.0)),
    "recall": lambda p, y: float(sk.recall_score(y, p, zero_division=0.0)),
    "precision_macro": _macro(sk.precision_score),
    "recall_macro": _macro(sk.recall_score),
    "f1_macro": _macro(sk.f1_score),
    "matthews": lambda p, y: float(sk.matthews_corrcoef(y, p)),
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def score(names: Iterable[str], predictions: NDArray, labels: NDArray) -> dict[str, float]:
    """Score class indices or scores, of shape (rows,), by each of `names`, keys of `METRICS`.

    F1, precision and recall are those of class 1 (GLUE's convention), and with `_macro` the means
    over all classes that occur. A correlation with a constant, which is undefined, counts as 0.

    Raises ValueError if the arrays differ in length, are empty, or hold NaN or infinity.
    """
    if predictions.shape != labels.shape or predictions.ndim != 1 or len(labels) == 0:
        raise ValueError(f"shapes {predictions.shape} and {labels.shape} cannot be scored")
    if not (np.isfinite(predictions).all() and np.isfinite(labels).all()):
        raise ValueError("NaN or infinity among predictions or labels cannot be scored")
    # Stored predictions are float32, in which a correlation would lose digits.
    predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    return {name: METRICS[name](predictions, labels) for name in names}
