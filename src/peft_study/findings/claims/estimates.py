"""Estimates with their intervals, the verdicts that intervals decide, and the words for both.

Intervals decide, never point estimates: where they do not, a claim is inconclusive; where a study
has no data, it is not measured.
"""

import math
from collections.abc import Sequence

from scipy import stats

from peft_study.findings.wording import number
from peft_study.records import Record
from peft_study.records.costs import Ratio
from peft_study.records.scores import Paired, StabilityPoint

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_MEASURED = "inconclusive", "not measured"
MOST_SEEDS = 1_000  # more than that is no advice
UNITS = {"points": ("+z.2f", 100), "J": ("+z,.0f", 1), "": (".3f", 1)}  # format and scale


class Finding(Record):
    """A verdict, its figures in a sentence, what it needs besides `settles`, and the tasks."""

    verdict: str
    finding: str
    needs: str = ""
    tasks: tuple[str, ...] = ()


class Estimate(Record):
    """A difference or, without a unit, a ratio; its 95% interval is None where there is none.

    `n` counts seeds or, for ratios of times, 0: their rounds are not what a study adds to.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    unit: str = ""
    n: int = 0

    def __str__(self) -> str:
        form, scale = UNITS[self.unit]
        value, *ends = (number(scale * x, form) for x in (self.value, *(self.interval or ())))
        interval = f"95% interval {' to '.join(ends)}" if ends else "no interval"
        seeds = f", n = {self.n}" if self.n else ""
        return f"{self.name} {f'{value} {self.unit}'.rstrip()} ({interval}{seeds})"


def of_paired(name: str, found: Paired, unit: str = "points") -> list[Estimate]:
    """Return the mean of paired differences; [] without any."""
    mean, interval = found.mean, _interval(found)
    return [] if mean is None else [Estimate(name, mean, interval, unit, found.n)]


def of_ratio(name: str, ratio: Ratio) -> Estimate:
    """Return a ratio of times."""
    return Estimate(name, ratio.median, _interval(ratio))


def of_variations(name: str, above: StabilityPoint, below: StabilityPoint) -> list[Estimate]:
    """Return the ratio of two coefficients of variation, with the F test's interval; [] of none."""
    if not above.cv or not below.cv:
        return []
    value = above.cv / below.cv
    high, low = (float(stats.f.ppf(p, above.n - 1, below.n - 1)) ** 0.5 for p in (0.025, 0.975))
    return [Estimate(name, value, (value / low, value / high), n=min(above.n, below.n))]


def _interval(found: Paired | Ratio) -> tuple[float, float] | None:
    return None if found.low is None or found.high is None else (found.low, found.high)


def not_measured(text: str, missing: Sequence[str] = ()) -> Finding:
    """Say why a study has no data for a claim, and which results are missing."""
    return Finding(NOT_MEASURED, "; ".join([text, *missing]) + ".")


def decided(contradicted: bool, supported: bool) -> str:
    """Return the verdict; what contradicts a claim goes first."""
    return CONTRADICTED if contradicted else SUPPORTED if supported else INCONCLUSIVE


def judge(
    text: str,
    found: list[Estimate],
    tasks: tuple[str, ...],
    lower: float = -math.inf,
    upper: float = math.inf,
    missing: Sequence[str] = (),
) -> Finding:
    """Judge by intervals: all between the bounds, with none missing, or some wholly outside."""
    ends = [estimate.interval for estimate in found if estimate.interval]
    outside = any(high < lower or low > upper for low, high in ends)
    inside = len(ends) == len(found) and all(lower < low and high < upper for low, high in ends)
    verdict, needs = decided(outside, inside and not missing), _seeds_needed(found, lower, upper)
    return Finding(verdict, "; ".join([text, *missing]) + ".", needs, tasks)


def _seeds_needed(found: list[Estimate], lower: float, upper: float) -> str:
    """Say how many seeds would decide on differences, if means and spreads stay as they are."""
    needed: dict[bool, list[float]] = {True: [], False: []}  # by whether a mean is inside
    for estimate in found:
        if not estimate.unit:  # of a ratio, intervals narrow otherwise
            return ""
        if estimate.interval is None:
            return "Two seeds or more: one has no interval."
        low, high = estimate.interval
        distance = min(abs(estimate.value - bound) for bound in (lower, upper))
        seeds = estimate.n * ((high - low) / 2 / distance) ** 2 if distance else math.inf
        needed[lower < estimate.value < upper].append(seeds)
    # One interval outside is enough to contradict; to support, all must be inside.
    seeds = min(needed[False]) if needed[False] else max(needed[True])
    if seeds > MOST_SEEDS or all(seeds <= estimate.n for estimate in found):
        return ""
    return f"About {math.ceil(seeds)} seeds, if means and spreads stay as they are."


def listed(found: list[Estimate]) -> str:
    """Show several estimates."""
    return "; ".join(map(str, found))
