"""The score of choosing an evaluation, on rows that did not choose it.

The best of many evaluations scores well by chance too. Here one half of the held-out rows chooses
an evaluation, the other half scores it, both ways, for several splits into halves; the scores are
averaged. Halves are scored apart: predictions of two evaluations are never pooled. Source: the
repeated cross-fitting of Chernozhukov et al. 2018, Double/debiased machine learning, section 3.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peft_study.findings.influence import values
from peft_study.records.scores import CrossFitted

SPLITS = 10


def halves(ids: Sequence[str], labels: NDArray, groups: Sequence[object]) -> NDArray[np.bool_]:
    """Return, for each split, which rows are in its first half, of shape (splits, rows).

    A hash of the row's id decides, so the same rows fall into the same halves in every run. Halves
    are as large as each other, to a row, and so are the rows of every value of `groups` in them, a
    class, say. Without groups (all equal) rows are paired by the rank of their label.
    """
    found = np.zeros((SPLITS, len(ids)), dtype=bool)
    by_rank = len(set(groups)) == 1
    for split in range(SPLITS):
        digests = [hashlib.sha256(f"{split}:{identity}".encode()).digest() for identity in ids]
        if not by_rank:
            order = sorted(range(len(ids)), key=lambda row: (str(groups[row]), digests[row]))
            found[split, order[::2]] = True
            continue
        order = sorted(range(len(ids)), key=lambda row: (labels[row], digests[row]))
        for pair in zip(order[::2], order[1::2], strict=False):
            found[split, pair[digests[pair[0]][-1] % 2]] = True
    return found


def cross_fit(
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    first_halves: NDArray[np.bool_],
    scored: Mapping[str, tuple[str, NDArray[np.bool_]]],
) -> tuple[CrossFitted, dict[str, NDArray[np.float64]]]:
    """Return a run's cross-fitted scores, and their values by row, of shape (rows,), by score.

    `predictions` are of shape (evaluations, rows); `scored` tells of each score the metric and the
    rows that count, the first of them chooses, of equals the earliest evaluation. Values, whose
    mean is the score, hold the choices fixed; they are NaN for rows that do not count.
    """
    chooser, _ = next(iter(scored.values()))

    def choose(rows: NDArray[np.bool_]) -> int:
        return int(np.argmax([values(chooser, p[rows], labels[rows]).mean() for p in predictions]))

    best = choose(np.ones(len(labels), dtype=bool))
    parts = [part for first in first_halves for part in (first, ~first)]
    scores, at_best = dict.fromkeys(scored, 0.0), dict.fromkeys(scored, 0.0)
    influences = {name: np.zeros(len(labels)) for name in scored}
    for part in parts:
        chosen = choose(~part)
        for name, (metric, counts) in scored.items():
            rows = part & counts
            of_rows, of_best = (
                values(metric, predictions[at, rows], labels[rows]) for at in (chosen, best)
            )
            score = float(of_rows.mean())
            scores[name] += score / len(parts)
            at_best[name] += float(of_best.mean()) / len(parts)
            size = counts.sum() / rows.sum()
            influences[name][rows] += (of_rows - score) * size / len(parts)
    optimism = {name: at_best[name] - scores[name] for name in scored}
    found = {
        name: np.where(counts, scores[name] + influences[name], np.nan)
        for name, (_, counts) in scored.items()
    }
    return CrossFitted(scores, optimism), found
