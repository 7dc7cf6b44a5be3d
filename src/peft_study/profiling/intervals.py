"""Ratios of what was measured in turns, with their uncertainty."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import quantile_test


def ratio(values: ArrayLike, reference: ArrayLike) -> dict[str, float | None]:
    """Return the median ratio of paired measurements, with its 95% interval.

    Args:
        values: one a round.
        reference: what was measured beside each.

    Returns:
        `median`, `low` and `high`: the distribution-free interval of the sign test, which supposes
        nothing of how times scatter (Conover 1999, section 3.2). It needs six rounds: with fewer,
        `low` and `high` are None. Equal to the reference within noise means that 1 lies between
        them.
    """
    ratios = np.asarray(values) / np.asarray(reference)
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = (float(end) if math.isfinite(end) else None for end in interval)
    return {"median": float(np.median(ratios)), "low": low, "high": high}
