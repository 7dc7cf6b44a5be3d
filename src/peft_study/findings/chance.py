"""What chance leaves of a mean: seeds crossed with held-out rows, both of them random.

The values are a matrix of seeds by rows whose mean is a score or, value by value, the difference of
two. Effects of the seed, of the row, and the rest add up. With the mean squares S, R and E of the
three, the error of the mean is sqrt(max(S + R - E, S, R) / n), n the number of values, and its
degrees of freedom are those of S and R (Satterthwaite 1946, An Approximate Distribution of
Estimates of Variance Components): those of E, which are many, add nothing. What the intervals
cover, `benchmarks/coverage.py` simulates and `docs/statistics.md` tells.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from peft_study.records import Record
from peft_study.records.scores import Chance

LEVEL, POWER = 0.95, 0.80
MOST_SEEDS, MOST_ROWS = 1_000, 1_000_000  # more is no advice

Values = NDArray[np.float64]  # seeds by rows


def two_way(values: Values) -> Chance:
    """Analyse values of shape (seeds, rows), two seeds at least.

    A row that is NaN, as one that a metric leaves out, does not count. Without rows, of shape
    (seeds, 1), seeds are the only chance.
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    (seeds, rows), mean = values.shape, values.mean()
    of_seeds = rows * float(np.square(values.mean(axis=1) - mean).sum())
    of_rows = seeds * float(np.square(values.mean(axis=0) - mean).sum())
    rest = max(0.0, float(np.square(values - mean).sum()) - of_seeds - of_rows)
    row, both = max(1, rows - 1), max(1, (seeds - 1) * (rows - 1))
    return Chance(float(mean), seeds, rows, of_seeds / (seeds - 1), of_rows / row, rest / both)


def lower_end(values: NDArray[np.float64]) -> float:
    """Return the lower end of one run's 95% interval, from values of shape (rows,)."""
    counted = values[~np.isnan(values)]
    scale = counted.std(ddof=1) / math.sqrt(len(counted))
    return float(counted.mean() - _quantile((1 + LEVEL) / 2, len(counted) - 1) * scale)


def resized(chance: Chance, seeds: int, rows: int) -> Chance:
    """Return what other numbers of seeds and of rows are expected to show."""
    rest = chance.of_rest
    of_seeds = rest + max(0.0, chance.of_seeds - rest) * rows / chance.rows
    of_rows = rest + max(0.0, chance.of_rows - rest) * seeds / chance.seeds
    return Chance(chance.mean, seeds, rows, of_seeds, of_rows if rows > 1 else 0.0, rest)


def error(chance: Chance) -> float:
    """Return the standard error of the mean."""
    return math.sqrt(_largest(chance) / (chance.seeds * chance.rows))


def freedom(chance: Chance) -> float:
    """Return the degrees of freedom of the error, 1 at least."""
    parts = (chance.of_seeds, chance.seeds - 1), (chance.of_rows, chance.rows - 1)
    below = sum(of**2 / degrees for of, degrees in parts if of)
    # To six digits, so that quantiles are looked up rather than computed again.
    return max(1.0, float(f"{_largest(chance) ** 2 / below:.6g}")) if below else 1.0


def reach(chance: Chance, level: float = LEVEL) -> float:
    """Return half the width of the interval that covers the mean at `level`, by default 95%."""
    return _quantile((1 + level) / 2, freedom(chance)) * error(chance)


def p_value(chance: Chance) -> float | None:
    """Return the two-sided p of a mean of zero; None where nothing varies."""
    scale = error(chance)
    return float(2 * stats.t.sf(abs(chance.mean) / scale, freedom(chance))) if scale else None


def p_equivalence(chance: Chance, margin: float) -> float:
    """Return the p of two one-sided tests against ±`margin` (Schuirmann 1987)."""
    return over_tasks([chance]).p_equivalence(margin)


class OverTasks(Record):
    """The mean of several tasks' means, its error and the degrees of freedom of that."""

    mean: float
    error: float
    freedom: float

    def reach(self) -> float:
        """Return half the width of the 95% interval."""
        return _quantile((1 + LEVEL) / 2, self.freedom) * self.error

    def p_zero(self) -> float:
        """Return the two-sided p of a mean of zero, which is certain where nothing varies."""
        if not self.error:
            return float(not self.mean)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

    def p_equivalence(self, margin: float) -> float:
        """Return the p of two one-sided tests against ±`margin` (Schuirmann 1987)."""
        distance = margin - abs(self.mean)
        if not self.error:
            return float(distance <= 0)
        return float(stats.t.sf(distance / self.error, self.freedom))


def over_tasks(tasks: Sequence[Chance]) -> OverTasks:
    """Return the mean over tasks, each of the same weight, whose chances are apart.

    Squared errors add up; the degrees of freedom are Satterthwaite's.
    """
    squares = [error(of) ** 2 for of in tasks]
    below = sum(square**2 / freedom(of) for square, of in zip(squares, tasks, strict=True))
    mean = sum(of.mean for of in tasks) / len(tasks)
    degrees = sum(squares) ** 2 / below if below else 1.0
    return OverTasks(mean, math.sqrt(sum(squares)) / len(tasks), float(f"{degrees:.6g}"))


def detectable(chance: Chance) -> float:
    """Return the difference that a two-sided test at 5% would show with a power of 80%."""
    return _noncentrality(freedom(chance)) * error(chance)


def shares(chance: Chance) -> tuple[float, float] | None:
    """Return the parts of the error's square that only more seeds, or only more rows, make smaller.

    What is left of 1 shrinks with either. None where nothing varies.
    """
    rest = chance.of_rest
    seeds, rows = (max(0.0, of - rest) for of in (chance.of_seeds, chance.of_rows))
    total = seeds + rows + rest
    return (seeds / total, rows / total) if total else None


def seeds_needed(chance: Chance, distance: float, level: float = LEVEL) -> int | None:
    """Return how many seeds would let the interval end within `distance` of the mean.

    The rows, and what varies, stay as they are. None if `MOST_SEEDS` would not do.
    """

    def enough(seeds: int) -> bool:
        return reach(resized(chance, seeds, chance.rows), level) < distance

    return _fewest(enough, MOST_SEEDS)


def rows_needed(chance: Chance, distance: float, level: float = LEVEL) -> int | None:
    """Return how many held-out rows would; None if `MOST_ROWS` would not, or rows are no chance."""

    def enough(rows: int) -> bool:
        return reach(resized(chance, chance.seeds, rows), level) < distance

    return _fewest(enough, MOST_ROWS) if chance.rows > 1 else None


def _largest(chance: Chance) -> float:
    both = chance.of_seeds + chance.of_rows - chance.of_rest
    return max(both, chance.of_seeds, chance.of_rows)


def _fewest(is_enough: Callable[[int], bool], most: int) -> int | None:
    """Return the least number, from 2 to `most`, that is enough.

    It is sought between powers of two: of three seeds or fewer, very many rows widen an interval
    again, since less and less of its error is known from rows.
    """
    below, above = 1, 2
    while not is_enough(above):
        if above == most:
            return None
        below, above = above, min(2 * above, most)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if is_enough(middle) else (middle, above)
    return above


@cache
def _quantile(p: float, degrees: float) -> float:
    return float(stats.t.ppf(p, degrees))


@cache
def _noncentrality(degrees: float) -> float:
    """Return the mean, in errors, that a two-sided t test at 5% shows with the power `POWER`."""
    critical = _quantile((1 + LEVEL) / 2, degrees)

    def short_of(mean: float) -> float:
        # The square of a noncentral t is a noncentral F, whose tails scipy computes more surely.
        return float(stats.ncf.sf(critical**2, 1, degrees, mean**2)) - POWER

    return float(optimize.brentq(short_of, 0.0, 4 * critical))
