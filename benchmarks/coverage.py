"""What do the study's 95% intervals cover, and how often do its tests err? A simulation.

Data are drawn from models whose true scores are known, and judged by the functions that judge a
study. A row is answered right where b + row + seed + rest > 0, all three normal: rows and rest have
the variance 1, and the variance of seeds is given as its ratio to that of rows. Another method has
seeds of its own, and its effects of rows correlate with those of the first by 0.5. Nothing that is
simulated is trained. Shares are in per cent; those that miss what is asked of them are marked `!`.

    python benchmarks/coverage.py --replications 4000
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peft_study.errors import run_command
from peft_study.findings import chance
from peft_study.findings.chance import Values
from peft_study.findings.comparisons import over_tasks as compared
from peft_study.findings.cross_fitting import cross_fit, halves
from peft_study.findings.influence import values
from peft_study.findings.overall import overall, rank, redrawn
from peft_study.records.scores import Chance

Array = NDArray[np.float64]
RATIOS = (0.0005, 0.005, 0.02)  # of the variance of seeds to that of rows
SEEDS = (3, 5, 10)
ROWS = (128, 256, 512, 2000)
ACCURACY, MARGIN = 0.80, 0.02
DIFFERENCES = (0.0, 0.03, MARGIN)  # the first method's accuracy minus the second's
POSITIVE = 0.6  # the share of class 1
AT_ONCE = 10_000_000  # numbers that are drawn together, which bounds the memory
# A normal expectation: points and weights for the standard normal.
POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


@dataclass(frozen=True)
class Setting:
    """How many seeds and rows there are, and how much seeds vary."""

    seeds: int
    rows: int
    ratio: float

    @property
    def usual(self) -> bool:
        """Tell whether intervals are asked to be close: few seeds or few rows are harder."""
        return self.seeds >= 5 and self.rows >= 256


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replications", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for part in (accuracies, metrics, power, cross_fitting, over_tasks, ranks):
        clock = time.monotonic()
        part(np.random.default_rng(arguments.seed), arguments.replications)
        print(f"\n{time.monotonic() - clock:.0f} s\n", flush=True)


def accuracies(rng: np.random.Generator, replications: int) -> None:
    """Print the coverage of accuracies and their differences, and false equivalence."""
    covered: dict[tuple[Setting, str], float] = {}
    wrong: dict[Setting, float] = {}
    for ratio, seeds, rows in product(RATIOS, SEEDS, ROWS):
        setting, found = Setting(seeds, rows, ratio), defaultdict(list)
        for ours, theirs in answers(rng, setting, DIFFERENCES, replications):
            cell = chance.two_way(ours)
            found["cell"].append(covers(cell, ACCURACY))
            for difference, other in zip(DIFFERENCES, theirs, strict=True):
                of = chance.two_way(ours - other)
                found[f"{100 * difference:.0f} points"].append(covers(of, difference))
                if difference == MARGIN:
                    found["equivalent"].append(chance.p_equivalence(of, MARGIN) < 0.05)
        wrong[setting] = share(found.pop("equivalent"))
        covered |= {(setting, name): share(of) for name, of in found.items()}
    names = ("cell", "0 points", "3 points")
    deviations = ", ".join(f"{100 * deviation(ratio):.1f}" for ratio in RATIOS)
    ratios = ", ".join(map(str, RATIOS))
    print("## Coverage of accuracies, and of differences of 0 and of 3 points\n")
    print(f"The ratios {ratios} are standard deviations over seeds of {deviations} points.\n")
    table(
        ("seeds", "rows", *(f"{ratio}: {name}" for ratio, name in product(RATIOS, names))),
        (
            (seeds, rows, *(judged(at, covered[at, name]) for at, name in of))
            for seeds, rows in product(SEEDS, ROWS)
            for of in [[(Setting(seeds, rows, ratio), n) for ratio, n in product(RATIOS, names)]]
        ),
    )
    for usual in (True, False):
        of_kind = [part for (at, name), part in covered.items() if at.usual == usual]
        which = "from 5 seeds and 256 rows on" if usual else "below"
        print(f"\n{which}: {min(of_kind):.1f} to {max(of_kind):.1f}")
    print("\n## False equivalence: the true difference is the margin, 2 points\n")
    table(
        ("seeds", "rows", *map(str, RATIOS)),
        (
            (seeds, rows, *(marked(wrong[Setting(seeds, rows, ratio)], 0, 6) for ratio in RATIOS))
            for seeds, rows in product(SEEDS, ROWS)
        ),
    )


def metrics(rng: np.random.Generator, replications: int) -> None:
    """Print the coverage of the other metrics and of their differences."""
    print("## Coverage of other metrics: five seeds, ratio 0.005\n")
    lines = []
    for rows in (256, 512):
        setting = Setting(5, rows, 0.005)
        found: dict[tuple[str, int], list[bool]] = defaultdict(list)
        for draw, names in ((classes, ("f1", "matthews")), (scores, ("pearson", "spearman"))):
            truths = [{name: true_score(name, at, 0.005) for name in names} for at in (0.0, 0.03)]
            for labels, *methods in draw(rng, setting, (0.0, 0.03), replications):
                for name in names:
                    ours, same, other = (by_row(name, of, labels) for of in methods)
                    first, second = (of[name] for of in truths)
                    found[name, 0].append(covers(chance.two_way(ours), first))
                    found[name, 1].append(covers(chance.two_way(ours - same), 0.0))
                    found[name, 2].append(covers(chance.two_way(ours - other), first - second))
        for name in ("f1", "matthews", "pearson", "spearman"):
            parts = (judged(setting, share(found[name, place])) for place in range(3))
            lines.append((rows, name, f"{100 * true_score(name, 0.0, 0.005):.1f}", *parts))
    table(("rows", "metric", "true score", "cell", "no difference", "a difference"), lines)


def power(rng: np.random.Generator, replications: int) -> None:
    """Print how often the difference is shown that `detectable` gives for mean squares' means."""
    print("## Power at the detectable difference\n")
    lines = []
    for ratio, seeds, rows in product(RATIOS, (5, 10), (256, 512)):
        setting, difference = Setting(seeds, rows, ratio), 0.0
        # A less accurate method varies more, so the mean squares are those at the difference.
        for _ in range(2):
            drawn = answers(rng, setting, (difference,), max(2, replications // 4))
            found = [chance.two_way(ours - theirs[0]) for ours, theirs in drawn]
            squares = (
                float(np.mean([getattr(of, name) for of in found]))
                for name in ("of_seeds", "of_rows", "of_rest")
            )
            difference = chance.detectable(Chance(0.0, seeds, rows, *squares))
        shown = [
            (chance.p_value(chance.two_way(ours - theirs[0])) or 0.0) < 0.05
            for ours, theirs in answers(rng, setting, (difference,), replications)
        ]
        told = f"{100 * difference:.1f}"
        lines.append((ratio, seeds, rows, told, marked(share(shown), 75, 85)))
    table(("ratio", "seeds", "rows", "detectable, points", "shown"), lines)


def cross_fitting(rng: np.random.Generator, replications: int) -> None:
    """Print the best and the cross-fitted score of 80 evaluations that are equally good."""
    print("## Cross-fitting: 80 equal evaluations, 277 rows, five seeds, Matthews, ratio 0.005\n")
    evaluations, rows, seeds, ratio = 80, 277, 5, 0.005
    truth, everything = true_score("matthews", 0.0, ratio), np.ones(rows, dtype=bool)
    best, fitted, covered = [], [], []
    for _ in range(max(2, replications // 16)):
        labels = (rng.random(rows) < POSITIVE).astype(np.float64)
        row, runs = rng.standard_normal(rows), []
        first_halves = halves([str(n) for n in range(rows)], labels, list(labels))
        for seed in rng.standard_normal(seeds) * math.sqrt(ratio):
            latent = level(0.0, ratio) + row + seed + rng.standard_normal((evaluations, rows))
            predictions = np.where(latent > 0, labels, 1 - labels)
            counted = {"matthews": ("matthews", everything)}
            score, of_rows = cross_fit(predictions, labels, first_halves, counted)
            scored = [values("matthews", of, labels).mean() for of in predictions]
            best.append(max(scored))
            fitted.append(score.scores["matthews"])
            runs.append(of_rows["matthews"])
        covered.append(covers(chance.two_way(np.stack(runs)), truth))
    means = (f"{100 * np.mean(of):.1f}" for of in (best, fitted, truth))
    within = judged(Setting(seeds, rows, ratio), share(covered))
    table(
        ("replications", "best", "cross-fitted", "truth", "covered"),
        [(len(covered), *means, within)],
    )


def over_tasks(rng: np.random.Generator, replications: int) -> None:
    """Print the coverage of the interquartile mean over eight tasks."""
    print("## Coverage of the interquartile mean: eight tasks, five seeds\n")
    lines = []
    count = max(2, replications // 4)
    at = np.linspace(-0.15, 0.20, 8)  # how far below `ACCURACY` the tasks are
    for ratio, rows in product(RATIOS, (256, 512)):
        setting = Setting(5, rows, ratio)
        normal = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000) * math.sqrt(ratio)
        true_runs = [stats.norm.cdf((level(task, ratio) + normal) / math.sqrt(2)) for task in at]
        truth = stats.trim_mean(np.concatenate(true_runs), 0.25)
        tasks = [answers(rng, setting, (0.0,), count, task) for task in at]
        covered = []
        for of in zip(*tasks, strict=True):
            # As in a study, a task's number is the seed of its draws: tasks must not share them.
            drawn = [redrawn((ours, theirs[0]), n) for n, (ours, theirs) in enumerate(of)]
            found, _ = overall(("ours", "theirs"), None, drawn, [])
            assert found.iqm_low is not None
            assert found.iqm_high is not None
            covered.append(found.iqm_low <= truth <= found.iqm_high)
        lines.append((ratio, rows, f"{100 * truth:.1f}", judged(setting, share(covered))))
    table(("ratio", "rows", "truth", f"covered, of {count}"), lines)


def ranks(rng: np.random.Generator, replications: int) -> None:
    """Print how often all ranks lie in their intervals, and how often one of draws' would.

    Methods are equally far apart, from `ACCURACY` down, in the same order on every task. The
    intervals of draws are those of the mean rank over tasks, as `redrawn` gives it.
    """
    print("## Coverage of ranks: five seeds, 256 rows, ratio 0.005\n")
    setting, lines, count = Setting(5, 256, 0.005), [], max(2, replications // 40)
    for methods, tasks, apart in product((4, 12), (1, 3, 8), (0.03, 0.12)):
        names, truth = [str(number) for number in range(methods)], np.arange(1.0, methods + 1)
        below = np.linspace(0, apart, methods)
        together, alone, by_draws, width = [], [], [], []
        for _ in range(count):
            of = [several(rng, setting, below) for _ in range(tasks)]
            chances = {
                (names[i], names[j]): [chance.two_way(task[i] - task[j]) for task in of]
                for i, j in combinations(range(methods), 2)
            }
            pairs = compared(MARGIN, chances, ())
            found = np.array([rank(name, pairs)[1:] for name in names])
            inside = (found[:, 0] <= truth) & (truth <= found[:, 1])
            together.append(bool(inside.all()))
            alone += inside.tolist()
            width.append(np.diff(found).mean())
            drawn = [redrawn(task, n).mean(axis=2) for n, task in enumerate(of)]
            means = np.mean([stats.rankdata(-scores, axis=1) for scores in drawn], axis=0)
            low, high = np.percentile(means[1:], (2.5, 97.5), axis=0)
            by_draws += ((low <= truth) & (truth <= high)).tolist()
        each = share(alone), share(by_draws), float(np.mean(width))
        of_all = marked(share(together), 95, 100)
        lines.append((methods, tasks, apart, of_all, *(f"{value:.1f}" for value in each)))
    heads = "methods", "tasks", "best minus worst", f"all, of {count}", "each", "by draws", "width"
    table(heads, lines)


def several(rng: np.random.Generator, setting: Setting, below: Array) -> list[Values]:
    """Return the right answers of methods so far below `ACCURACY`."""
    count, shape = len(below), (setting.seeds, setting.rows)
    rows = (normal(rng, 1, 1, shape[1]) + normal(rng, count, 1, shape[1])) * math.sqrt(0.5)
    latent = rows + normal(rng, count, shape[0], 1) * math.sqrt(setting.ratio)
    latent = latent + normal(rng, count, *shape)
    levels = [level(of, setting.ratio) for of in below]
    return [(of + at > 0).astype(np.float64) for of, at in zip(latent, levels, strict=True)]


def answers(
    rng: np.random.Generator,
    setting: Setting,
    differences: Sequence[float],
    replications: int,
    below: float = 0.0,
) -> Iterator[tuple[Values, list[Values]]]:
    """Yield the right answers of a method, and of another that is worse by each of `differences`.

    The first is right with probability `ACCURACY` - `below`.
    """
    levels = [level(below + of, setting.ratio) for of in (0.0, *differences)]
    for latent in effects(rng, setting, replications):
        ours, *theirs = (
            (of + at > 0).astype(np.float64)
            for of, at in zip((latent[0], *[latent[1]] * len(differences)), levels, strict=True)
        )
        yield ours, theirs


def classes(
    rng: np.random.Generator, setting: Setting, below: Sequence[float], replications: int
) -> Iterator[tuple[Array, ...]]:
    """Yield labels, and predictions of a method and of others of accuracies so far below."""
    for ours, theirs in answers(rng, setting, below, replications):
        labels = (rng.random(setting.rows) < POSITIVE).astype(np.float64)
        yield labels, *(np.where(right > 0, labels, 1 - labels) for right in (ours, *theirs))


def scores(
    rng: np.random.Generator, setting: Setting, below: Sequence[float], replications: int
) -> Iterator[tuple[Array, ...]]:
    """Yield labels and predictions that are scores: label + exp(seed) x noise of row and rest."""
    noise = replace(setting, ratio=0.0)
    for latent in effects(rng, noise, replications):
        labels = rng.standard_normal(setting.rows)
        seeds = np.exp(rng.standard_normal((2, setting.seeds, 1)) * math.sqrt(setting.ratio))
        methods = [(0, 0.0), *((1, of) for of in below)]
        yield labels, *(labels + spread(of) * seeds[at] * latent[at] for at, of in methods)


def effects(rng: np.random.Generator, setting: Setting, replications: int) -> Iterator[Array]:
    """Yield row + seed + rest of two methods, of shape (2, seeds, rows)."""
    size = 2 * setting.seeds * setting.rows
    for start in range(0, replications, step := max(1, AT_ONCE // size)):
        count = min(step, replications - start)
        shared, own = normal(rng, count, 1, 1, setting.rows), normal(rng, count, 2, 1, setting.rows)
        seed = normal(rng, count, 2, setting.seeds, 1) * np.float32(math.sqrt(setting.ratio))
        rest = normal(rng, count, 2, setting.seeds, setting.rows)
        rest += seed + (shared + own) * np.float32(math.sqrt(0.5))
        yield from rest


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Return standard normal numbers; single floats are drawn in half the time."""
    return rng.standard_normal(shape, dtype=np.float32)


def level(below: float, ratio: float) -> float:
    """Return the b with which answers are right with probability `ACCURACY` - `below`."""
    return float(stats.norm.ppf(ACCURACY - below)) * math.sqrt(2 + ratio)


def deviation(ratio: float) -> float:
    """Return the standard deviation over seeds of the accuracy on all rows that there could be."""
    right = seeds_accuracy(0.0, ratio)
    return math.sqrt(expectation(right**2) - expectation(right) ** 2)


def seeds_accuracy(below: float, ratio: float) -> Array:
    """Return the accuracy on all rows of seeds whose effects are `POINTS`."""
    return stats.norm.cdf((level(below, ratio) + POINTS * math.sqrt(ratio)) / math.sqrt(2))


def expectation(of_points: Array) -> float:
    return float((WEIGHTS * of_points).sum() / WEIGHTS.sum())


def spread(below: float) -> float:
    """Return the noise of a method whose Pearson correlation is about `ACCURACY` - `below`."""
    return math.sqrt((1 / (ACCURACY - below) ** 2 - 1) / 2)


def true_score(metric: str, below: float, ratio: float) -> float:
    """Return what `classes` or `scores` would score on all rows, the mean over all seeds."""
    if metric in ("pearson", "spearman"):
        noise = 2 * (spread(below) * np.exp(POINTS * math.sqrt(ratio))) ** 2
        found = 1 / np.sqrt(1 + noise)
        # Of normal variables, Pearson 1907.
        return expectation(found if metric == "pearson" else 6 / math.pi * np.arcsin(found / 2))
    right = seeds_accuracy(below, ratio)
    true, false = POSITIVE * right, (1 - POSITIVE) * (1 - right)
    if metric == "f1":
        return expectation(2 * true / (POSITIVE + true + false))
    said = true + false
    covariance, variance = true - POSITIVE * said, POSITIVE * (1 - POSITIVE)
    return expectation(covariance / np.sqrt(variance * said * (1 - said)))


def by_row(metric: str, predictions: Array, labels: Array) -> Values:
    return np.stack([values(metric, of, labels) for of in predictions])


def covers(found: Chance, truth: float) -> bool:
    return abs(found.mean - truth) <= chance.reach(found)


def share(of: Sequence[bool]) -> float:
    return 100 * sum(of) / len(of)


def judged(setting: Setting, part: float) -> str:
    """Tell a coverage, marked where it misses what is asked of it."""
    return marked(part, *((93, 97) if setting.usual else (91, 98)))


def marked(part: float, least: float, most: float) -> str:
    return f"{part:.1f}" + ("" if least <= part <= most else " !")


def table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    print(f"| {' | '.join(heads)} |")
    print(f"|{' ---: |' * len(heads)}")
    for line in lines:
        print(f"| {' | '.join(map(str, line))} |", flush=True)


if __name__ == "__main__":
    run_command(main)
