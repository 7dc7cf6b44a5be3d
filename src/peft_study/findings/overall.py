"""Methods over all tasks of a study: ranks and, from six tasks on, measures of Agarwal et al. 2021.

A method's rank is that of its mean score over the tasks. Its interval follows from which of the
others are told apart from it by that mean: one more than those that are better, to as many as there
are without those that are worse. Where no test errs, which corrected ones do in less than 5% of
studies, all true ranks lie in their intervals. Source: Mogstad, Romano, Shaikh and Wilhelm 2024,
Inference for Ranks with Applications to Mobility across Neighborhoods and Academic Achievement
across Countries. Drawing seeds and rows anew is no way to such intervals: draws pull all
ranks towards the middle, as benchmarks/coverage.py shows.

The interquartile mean and the probability of improvement are those of section 4.3 of Deep
Reinforcement Learning at the Edge of the Statistical Precipice. Their stratified bootstrap draws
the runs of every task anew. Held-out rows are chance as well: so each draw also moves all runs of a
method as another draw of rows would, by a normal deviate with the covariance of what rows add to
the methods' means. Runs' deviations are widened by sqrt(n / (n - 1)), without which a few seeds
would look too much alike. The intervals end at the 2.5th and the 97.5th percentile.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peft_study.findings.chance import Values
from peft_study.records.scores import Overall, OverTasks

FEWEST_TASKS = 6
DRAWS = 2_000

Scores = NDArray[np.float64]


def redrawn(values: Sequence[Values], seed: int) -> Scores:
    """Return the scores of methods on a task as they are, then as chance might have given them.

    `values` are of shape (seeds, rows), by method, on the same seeds and rows; the result is of
    shape (1 + DRAWS, methods, seeds). Every task needs another `seed`: their chances are apart.
    """
    rng = np.random.default_rng(seed)
    scores = np.stack([of.mean(axis=1) for of in values])
    n, rows = values[0].shape
    means = scores.mean(axis=1, keepdims=True)
    drawn = rng.integers(n, size=(DRAWS, len(values), n))
    runs = np.take_along_axis((scores - means)[None], drawn, axis=2) * (n / (n - 1)) ** 0.5
    of_rows = np.atleast_2d(np.cov([of.mean(axis=0) for of in values])) / rows
    moved = rng.multivariate_normal(np.zeros(len(values)), of_rows, DRAWS, method="eigh")
    return np.concatenate([scores[None], means + runs + moved[:, :, None]])


def overall(
    methods: Sequence[str],
    reference: str | None,
    tasks: Sequence[Scores],
    pairs: Sequence[OverTasks],
) -> list[Overall]:
    """Return what each method scores over all tasks, from what `redrawn` gave of each of them.

    `reference` is the method over which improvement is told, and `pairs` compare all methods. Fewer
    than six tasks give ranks alone, and none of a single method.
    """
    few = len(tasks) < FEWEST_TASKS
    if not tasks or (few and len(methods) < 2):
        return []
    scores = np.stack(tasks, axis=2)  # (draws, methods, tasks, seeds)
    draws, count, *_ = scores.shape
    iqm = None if few else stats.trim_mean(scores.reshape(draws, count, -1), 0.25, axis=2)
    found = []
    for place, method in enumerate(methods):
        better: tuple[float | None, float | None, float | None] = (None, None, None)
        if not few and reference is not None and method != reference:
            better = _told(_improvement(scores[:, place], scores[:, methods.index(reference)]))
        middle = (None, None, None) if iqm is None else _told(iqm[:, place])
        of = *rank(method, pairs), *middle, *better
        found.append(Overall(method, len(tasks), *of))
    return found


def rank(method: str, pairs: Sequence[OverTasks]) -> tuple[float, int, int]:
    """Return a method's rank, 1 the best, equals sharing theirs, and the ends of its interval."""
    ahead = [(of.mean, of.differs) for of in pairs if of.reference == method]
    ahead += [(-of.mean, of.differs) for of in pairs if of.method == method]
    better = sum(mean > 0 and told for mean, told in ahead)
    worse = sum(mean < 0 and told for mean, told in ahead)
    own = 1 + sum(1.0 if mean > 0 else 0.5 for mean, _ in ahead if mean >= 0)
    return own, 1 + better, 1 + len(ahead) - worse


def _improvement(ours: Scores, theirs: Scores) -> Scores:
    """Return the share of pairs of runs of which ours is better, equals by half, over tasks.

    Both are of shape (draws, tasks, seeds); a run of one is paired with every run of the other.
    """
    above = (ours[..., :, None] > theirs[..., None, :]).mean(axis=(2, 3))
    equal = (ours[..., :, None] == theirs[..., None, :]).mean(axis=(2, 3))
    found: Scores = (above + equal / 2).mean(axis=1)
    return found


def _told(draws: Scores) -> tuple[float, float, float]:
    low, high = np.percentile(draws[1:], (2.5, 97.5))
    return float(draws[0]), float(low), float(high)
