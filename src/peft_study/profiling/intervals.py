"""Means and ratios of what was measured, with their uncertainty."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from peft_study.records.costs import Ratio

LEVEL = 0.95


def ratio(values: ArrayLike, reference: ArrayLike) -> Ratio:
    """Return the median ratio of measurements to those beside them, with its 95% interval.

    The interval is that of the sign test, which supposes nothing of how times scatter (Conover
    1999, section 3.2) and needs six rounds. Equal to the reference within noise means that 1 lies
    between its ends.
    """
    ratios = np.asarray(values) / np.asarray(reference)
    interval = stats.quantile_test(ratios, p=0.5).confidence_interval(LEVEL)
    low, high = (float(end) if math.isfinite(end) else None for end in interval)
    return Ratio(float(np.median(ratios)), low, high)


def mean_interval(values: ArrayLike) -> tuple[float, float | None, float | None]:
    """Return the mean of a few like measurements, and its 95% interval by Student's t."""
    found = np.asarray(values, dtype=float)
    mean, n = float(found.mean()), len(found)
    if n < 2:
        return mean, None, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * found.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def ratio_of_means(values: ArrayLike, reference: ArrayLike) -> Ratio:
    """Return the ratio of the means of two groups that are no pairs, with its 95% interval.

    Both groups are of a few like measurements that scatter by a small share of their means: the
    error of the ratio's logarithm is then that of the means' shares, and the interval Welch's.
    """
    groups = ours, theirs = [np.asarray(g, dtype=float) for g in (values, reference)]
    found = float(ours.mean() / theirs.mean())
    if np.array_equal(ours, theirs):  # of the reference to itself
        return Ratio(1.0, 1.0, 1.0)
    if min(map(len, groups)) < 2:
        return Ratio(found, None, None)
    shares = [float((g.std(ddof=1) / g.mean()) ** 2) / len(g) for g in groups]
    error = sum(shares)
    if error == 0:
        return Ratio(found, found, found)
    freedom = error**2 / sum(s**2 / (len(g) - 1) for s, g in zip(shares, groups, strict=True))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(error)
    return Ratio(found, found * math.exp(-half), found * math.exp(half))
