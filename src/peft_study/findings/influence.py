"""What each held-out row adds to a score, for every metric: values whose mean is the score.

For accuracy they are 1 for a right answer and 0 for a wrong one. For other metrics they are the
score plus the row's influence (Hampel 1974, The Influence Curve and Its Role in Robust Estimation):
how much the score would move if rows like it came more often. To the first order the error of the
score is that of their mean.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def values(metric: str, predictions: Array, labels: Array) -> Array:
    """Return the values, of shape (rows,), of class indices or scores of that shape.

    Their mean equals what `peft_study.data.metrics` scores by `metric`, a key of `METRICS` there.
    """
    return VALUES[metric](predictions, labels)


def _accuracy(predictions: Array, labels: Array) -> Array:
    return (predictions == labels).astype(np.float64)


def _share(part: Array, whole: Array) -> Array:
    """Return the values of a ratio of two means, as precision is; of nothing it is 0."""
    mean = whole.mean()
    ratio = part.mean() / mean if mean else 0.0
    return ratio + (part - ratio * whole) / mean if mean else np.zeros(len(part))


def _precision(predictions: Array, labels: Array) -> Array:
    found = predictions == 1
    return _share((found & (labels == 1)).astype(np.float64), found.astype(np.float64))


def _recall(predictions: Array, labels: Array) -> Array:
    return _precision(labels, predictions)


def _f1(predictions: Array, labels: Array) -> Array:
    found, there = predictions == 1, labels == 1
    return _share(2.0 * (found & there), found.astype(np.float64) + there)


def _macro(of: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return the mean over the classes that occur of what `of` gives for a class as class 1."""

    def mean(predictions: Array, labels: Array) -> Array:
        classes = np.union1d(predictions, labels)
        each = [of(1.0 * (predictions == c), 1.0 * (labels == c)) for c in classes]
        found: Array = np.mean(each, axis=0)
        return found

    return mean


def _correlation(x: Array, y: Array, dxy: Array, dxx: Array, dyy: Array) -> Array:
    """Return the values of covariance / sqrt(variances), from each row's part in the three.

    `x` and `y` are centred, of shape (rows, dimensions); a correlation with a constant is 0.
    """
    xy, xx, yy = (float((a * b).sum(axis=1).mean()) for a, b in ((x, y), (x, x), (y, y)))
    if not (xx > 0 and yy > 0):
        return np.zeros(len(x))
    scale, found = (xx * yy) ** 0.5, xy / (xx * yy) ** 0.5
    influence = dxy / scale - found / 2 * (dxx / xx + dyy / yy)
    return found + influence - influence.mean()


def _of_products(x: Array, y: Array) -> Array:
    """Return the correlation's values where a row's part is its own product."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return _correlation(x, y, *((a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y))))


def _pearson(predictions: Array, labels: Array) -> Array:
    return _of_products(predictions[:, None], labels[:, None])


def _matthews(predictions: Array, labels: Array) -> Array:
    """Gorodkin 2004's correlation of class indicators, Matthews' with two classes."""
    classes = np.union1d(predictions, labels)
    x, y = ((of[:, None] == classes).astype(np.float64) for of in (predictions, labels))
    return _of_products(x, y)


def _spearman(predictions: Array, labels: Array) -> Array:
    """Pearson's of ranks; a row also moves the ranks of others."""
    x, y = (stats.rankdata(of) / len(of) for of in (predictions, labels))
    x, y = x - x.mean(), y - y.mean()

    def part(a: Array, b: Array) -> Array:
        return a * b + _above(a, b) + _above(b, a)

    return _correlation(x[:, None], y[:, None], part(x, y), part(x, x), part(y, y))


def _above(ranks: Array, weights: Array) -> Array:
    """Return the mean over all rows of the weights of those ranked above each, ties by half."""
    order = np.argsort(ranks, kind="stable")
    inside, total = ranks[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    below = total[np.searchsorted(inside, ranks, "left")]
    until = total[np.searchsorted(inside, ranks, "right")]
    return (total[-1] - (below + until) / 2) / len(ranks)


VALUES: dict[str, Callable[[Array, Array], Array]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
    "precision_macro": _macro(_precision),
    "recall_macro": _macro(_recall),
    "f1_macro": _macro(_f1),
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
