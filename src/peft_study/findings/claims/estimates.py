"""Estimates with their intervals, the verdicts that intervals decide, and the words for both.

Intervals decide, never point estimates: where they do not, or methods have not learned, a claim is
inconclusive; where a study has no data, it is not measured.
"""

import math
from collections.abc import Sequence

from scipy import stats

from peft_study.findings import chance
from peft_study.findings.chance import LEVEL
from peft_study.findings.wording import TRY, needed, number, percent
from peft_study.records import Record
from peft_study.records.costs import Ratio
from peft_study.records.scores import Chance, Paired, StabilityPoint

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_MEASURED = "inconclusive", "not measured"
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
    `unlearned` says which methods have not learned, so that it decides nothing.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    unit: str = ""
    n: int = 0
    chance: Chance | None = None
    unlearned: str = ""

    @property
    def decides(self) -> bool:
        return self.interval is not None and not self.unlearned

    def __str__(self) -> str:
        form, scale = UNITS[self.unit]
        value, *ends = (number(scale * x, form) for x in (self.value, *(self.interval or ())))
        interval = f"95% interval {' to '.join(ends)}" if ends else "no interval"
        seeds = f", n = {self.n}" if self.n else ""
        seeds += f"; {self.unlearned}, so it decides nothing" if self.unlearned else ""
        return f"{self.name} {f'{value} {self.unit}'.rstrip()} ({interval}{seeds})"


def of_paired(
    name: str, found: Paired, unit: str = "points", unlearned: str = ""
) -> list[Estimate]:
    """Return the mean of paired differences; [] without any."""
    mean, ends = found.mean, _interval(found)
    about = found.n, found.chance, unlearned
    return [] if mean is None else [Estimate(name, mean, ends, unit, *about)]


def of_ratio(name: str, ratio: Ratio) -> Estimate:
    """Return a ratio of times."""
    return Estimate(name, ratio.value, _interval(ratio))


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
    ends = [e.interval for e in found if e.interval and e.decides]
    outside = any(high < lower or low > upper for low, high in ends)
    inside = len(ends) == len(found) and all(lower < low and high < upper for low, high in ends)
    verdict = decided(outside, inside and not missing)
    said = "; ".join([text, *missing]) + "." + _by_chance(found)
    return Finding(verdict, said, _settles(found, lower, upper), tasks)


def _by_chance(found: list[Estimate]) -> str:
    """Say how often chance alone would put one of several differences outside the bounds."""
    several = sum(bool(estimate.unit) for estimate in found)
    if several < 2:
        return ""
    often = percent(1 - (1 - (1 - LEVEL) / 2) ** several)
    return (
        f" If every true difference lay at a bound, chance alone would contradict the claim on "
        f"some of the {several} in {often}% of studies."
    )


def _settles(found: list[Estimate], lower: float, upper: float) -> str:
    """Say what would decide on differences: learning, or seeds or rows if all else stays."""
    if any(estimate.unlearned for estimate in found):
        return f"Methods that learn the task: {TRY}."
    plans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}  # by whether it is inside
    for estimate in found:
        if not estimate.unit:  # of a ratio, intervals narrow otherwise
            return ""
        if estimate.interval is None or estimate.chance is None:
            return "Two seeds or more that both have: one has no interval."
        distance = min(abs(estimate.value - bound) for bound in (lower, upper))
        of = estimate.chance, distance
        plan = chance.seeds_needed(*of) or math.inf, chance.rows_needed(*of) or math.inf
        plans[lower < estimate.value < upper].append(plan)
    # One interval outside is enough to contradict; to support, all must be inside.
    seeds, rows = (
        min(each) if plans[False] else max(each)
        for each in zip(*(plans[False] or plans[True]), strict=True)
    )
    now = [estimate.chance for estimate in found if estimate.chance]
    if all(seeds <= at.seeds for at in now):
        return ""
    words = needed(*(None if n == math.inf else round(n) for n in (seeds, rows)))
    return f"{words}, if means and spreads stay as they are." if words else ""


def listed(found: list[Estimate]) -> str:
    """Show several estimates."""
    return "; ".join(map(str, found))
