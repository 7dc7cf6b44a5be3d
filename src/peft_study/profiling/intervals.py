"""Ratios of what was measured in turns, with their uncertainty."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import quantile_test

from peft_study.records.costs import Ratio


def ratio(values: ArrayLike, reference: ArrayLike) -> Ratio:
    """Return the median ratio of measurements to those beside them, with its 95% interval.

    The interval is that of the sign test, which supposes nothing of how times scatter (Conover
    1999, section 3.2) and needs six rounds. Equal to the reference within noise means that 1 lies
    between its ends.
    """
    ratios = np.asarray(values) / np.asarray(reference)
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = (float(end) if math.isfinite(end) else None for end in interval)
    return Ratio(float(np.median(ratios)), low, high)
