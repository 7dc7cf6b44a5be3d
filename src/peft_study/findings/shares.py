"""How much of the gap between a published number and a study a variant of the study explains.

A gap is P - B, published minus the mean B of the study's seeds, and a variant of mean V explains
the share (V - B) / (P - B) of it. Numerator and denominator are both uncertain, and B is in both,
so the interval is Fieller's (1954, Some Problems in Interval Estimation): all shares r for which
D(r) = (V - B) - r (P - B) cannot be told from zero. D(r) is the mean over seeds of
v - (1 - r) b, minus r P; its squared error is the variance of that mean plus r^2 var(P).

P is the median of the published seeds, whose deviation is printed, or else taken to be that of our
own. Published scores are of the same held-out rows (GLUE's development sets), which are therefore
no chance here: seeds alone are. Where a study holds out other rows, all this is said of its rows.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from peft_study.findings.chance import LEVEL
from peft_study.records import Record

Seeds = NDArray[np.float64]  # a score each, of shape (seeds,)
Ends = tuple[float | None, float | None]  # of a 95% interval; None where there is none
FARTHEST = 1e9  # a share beyond which an end is not looked for


class Target(Record):
    """A published number: its deviation over seeds, and their number, as far as printed."""

    value: float
    std: float | None
    seeds: int | None


def distance(ours: Seeds, target: Target) -> tuple[float, float | None, float | None]:
    """Return published minus the mean of `ours`, and the ends of its 95% interval."""
    mean = target.value - float(ours.mean())
    if len(ours) < 2:
        return mean, None, None
    reach = math.sqrt(_square(ours, 1.0, target, ours))
    return mean, mean - reach, mean + reach


def share(variant: Seeds, study: Seeds, target: Target) -> tuple[float | None, Ends]:
    """Return the share of the gap that a variant explains, and the ends of its 95% interval.

    `variant` and `study` are the scores of the same seeds. All is None where the interval would
    have no ends: where the gap is zero as far as one can tell, or there is one seed.
    """
    gap = target.value - float(study.mean())
    if len(study) < 2 or not gap**2 > _square(study, 1.0, target, variant):
        return None, (None, None)
    effect = float((variant - study).mean())
    best = effect / gap

    def outside(at: float) -> float:
        """Return D(at)^2 minus what it may be by chance: positive outside of the interval."""
        values = variant - (1 - at) * study
        return (effect - at * gap) ** 2 - _square(values, at, target, variant)

    return best, (_end(outside, best, -1.0), _end(outside, best, 1.0))


def _end(outside: Callable[[float], float], best: float, step: float) -> float | None:
    """Return where `outside` turns positive on the side of `best` to which `step` goes."""
    if outside(best) >= 0:
        return best  # nothing varies
    while outside(best + step) <= 0:
        step *= 2
        if abs(step) > FARTHEST:
            return None
    return float(optimize.brentq(outside, best, best + step, xtol=1e-9))


def _square(values: Seeds, weight: float, target: Target, like: Seeds) -> float:
    """Return the square of half the 95% interval of the mean of `values` minus `weight` x P.

    A deviation that is not printed is that of the seeds `like`, a number of seeds that of ours.
    The degrees of freedom are Satterthwaite's; of the two variances of one deviation they are
    those of that one.
    """
    n = len(values)
    seeds = target.seeds or n
    own = float(values.var(ddof=1)) / n
    std = float(like.std(ddof=1)) if target.std is None else target.std
    published = weight**2 * of_median(seeds) * std**2 / seeds
    below = own**2 / (n - 1)
    if target.std is not None and seeds > 1:
        below += published**2 / (seeds - 1)
        freedom = (own + published) ** 2 / below if below else 1.0
    else:
        freedom = n - 1.0
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2) ** 2) * (own + published)


def of_median(n: int) -> float:
    """Return how many times as large as that of a mean of n normal values a median's variance is.

    It is pi/2 of very many, 1 of one, and 1.41 of five, where 1.43 is exact.
    """
    return n * (math.pi / 2) / (n + math.pi / 2 - 1)
