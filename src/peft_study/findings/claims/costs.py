"""The rules of the claims about costs: the profile decides them, on all its tasks together."""

import math
from collections.abc import Iterable
from typing import Literal

from peft_study.findings.claims import estimates as est
from peft_study.findings.claims.estimates import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Estimate,
    Finding,
    judge,
    listed,
    not_measured,
    of_ratio,
)
from peft_study.findings.results import Results
from peft_study.findings.wording import batches_of, busy, measured_with, number
from peft_study.records import Record
from peft_study.records.costs import Amount, InferenceCost, Profile, Ratio, Recipe, TaskProfile

MARGIN = 1.05  # latencies whose ratio lies within it, either way, are equal
FASTER = 0.65  # of an epoch's time: what "approximately 40%" less, the smaller figure, would be
KINDS = {"one_by_one": "one by one", "validation_set": "validation set"}
RELATIVE = "Latency relative to the model without adapters:"
COUNTED = {  # how memory is told, on CUDA and elsewhere
    True: {"as_measured": "by NVML", "beyond_libraries": "as allocated by PyTorch"},
    False: {
        "as_measured": "as measured, of the whole process",
        "beyond_libraries": "beyond what a process that only imports the libraries takes",
    },
}
Timed = list[tuple[TaskProfile, InferenceCost]]


def merged_latency(results: Results) -> Finding:
    """Judge that our LoRA, merged, adds nothing to the latency of the model without adapters.

    Where two copies of that model are not seen to be equal, nothing is decided.
    """
    lora = results.study.role("lora")
    profile, rows = _latencies(results, lora, merged=True)
    if not profile or not rows:
        return _no_profile(results, lora)
    found, copies = _ratios(rows), _ratios([(costs, costs.second_copy) for costs, _ in rows])
    over = any(low > MARGIN for low, _ in _ends(found))
    verdict = est.decided(over, all(map(_equal, found)))
    text = f"{RELATIVE} {listed(found)}. A second copy of that model itself: {listed(copies)}"
    if not all(map(_equal, copies)):
        verdict = INCONCLUSIVE
        text += ", so that two copies are not seen to be equal, and this decides nothing"
    needs = _rounds_needed([*found, *copies], rows[0][1].one_by_one.n)
    text += _about(results, profile, rows[0][1].recipe)
    return Finding(verdict, f"{text}.", needs, tuple(costs.task for costs, _ in rows))


def adapter_latency(results: Results) -> Finding:
    """Judge that adapters add latency, one example at a time: more than two copies differ by."""
    adapter = results.study.role("adapter_h")
    profile, rows = _latencies(results, adapter, merged=False)
    if not profile or not rows:
        return _no_profile(results, adapter)
    found, copies = _ratios(rows), _ratios([(costs, costs.second_copy) for costs, _ in rows])
    alone, floor = found[:: len(KINDS)], _ends(copies[:: len(KINDS)])
    bound = max([1.0, *(high for _, high in floor)])
    more = len(floor) == len(alone) and all(e.interval and e.interval[0] > bound for e in alone)
    verdict = est.decided(any(high < 1 for _, high in _ends(alone)), more)
    text = f"{RELATIVE} {listed(found)}. A second copy of that model itself: {listed(copies)}"
    text += _about(results, profile, rows[0][1].recipe)
    return Finding(verdict, f"{text}.", tasks=tuple(costs.task for costs, _ in rows))


def memory(
    kind: Literal["peak", "mean"], wanted: float, contradicted_below: float, results: Results
) -> Finding:
    """Judge the share of memory that LoRA saves, at the peak or on average, over the tasks.

    On CUDA by what NVML says. Elsewhere no figure is a GPU's: a resident set holds Python and its
    libraries, which no GPU does, and the rest lacks CUDA's own context, so that both must agree.
    """
    profile, methods = results.profile, _lora_and_full(results)
    pairs = [
        (costs, lora, full)
        for costs in (profile.tasks if profile else ())
        if (lora := costs.memory_of(methods[0])) and (full := costs.memory_of(methods[1]))
    ]
    if not profile or not pairs:
        return _no_profile(results, *methods)
    texts, verdicts = [], []
    for counted, label in COUNTED[bool(profile.machine.gpu)].items():
        amounts: list[tuple[Amount, Amount]] = [
            (getattr(getattr(lora, counted), kind), getattr(getattr(full, counted), kind))
            for _, lora, full in pairs
        ]
        saved = Saved.over([ours.ratio for ours, _ in amounts])
        verdicts.append(saved.verdict(wanted, contradicted_below))
        sizes = [f"{a.bytes / 1e6:,.0f} MB instead of {b.bytes / 1e6:,.0f} MB" for a, b in amounts]
        texts.append(f"{label}, {saved}, {', '.join(sizes)}")
    tasks = tuple(costs.task for costs, *_ in pairs)
    text = f"With LoRA the {kind} is, {'; '.join(texts)}; n = {pairs[0][1].n} processes on "
    text += f"{', '.join(tasks)}{_about(results, profile, pairs[0][1].recipe)}."
    if profile.machine.gpu:
        return Finding(verdicts[0], text, tasks=tasks)
    text += " A GPU's memory has CUDA's context, but neither Python nor its libraries: its saving "
    text += "would lie between these two"
    agree = len(set(verdicts)) == 1
    text += "." if agree else ", which do not agree."
    return Finding(verdicts[0] if agree else INCONCLUSIVE, text, tasks=tasks)


def epochs(results: Results) -> Finding:
    """Judge how much less time an epoch takes with our LoRA than with full fine-tuning."""
    profile, methods = results.profile, _lora_and_full(results)
    # Without full fine-tuning the profile's ratios are to LoRA itself.
    rows = [
        (costs, row)
        for costs in (profile.tasks if profile else ())
        if (row := costs.step_of(methods[0])) and costs.step_of(methods[1])
    ]
    if not profile or not rows:
        return _no_profile(results, *methods)
    found = []
    for costs, row in rows:
        compared = {name: costs.batches[name] for name in methods}
        name = f"{costs.task}, {batches_of(compared, results.study)},"
        found.append(of_ratio(name, row.ratio))
    text = f"With LoRA an epoch takes of full fine-tuning's time: {listed(found)}"
    for most, least in _ends(found):
        ends = (number(100 * (1 - end), "z.0f") for end in (least, most))
        text += f", {'% to '.join(ends)}% less"
    text += _about(results, profile, rows[0][1].recipe)
    return judge(text, found, tuple(costs.task for costs, _ in rows), upper=FASTER)


class Saved(Record):
    """A share that is saved, the mean over tasks, and its interval; None where there is none."""

    share: float
    low: float | None
    high: float | None

    @classmethod
    def over(cls, ratios: list[Ratio]) -> "Saved":
        """Return the mean of what independent ratios save, as the source has it of its tasks."""
        share = 1 - sum(ratio.value for ratio in ratios) / len(ratios)
        ends = [(r.value - r.low, r.high - r.value) for r in ratios if r.low and r.high]
        if len(ends) < len(ratios):
            return cls(share, None, None)
        more, less = (math.hypot(*side) / len(ratios) for side in zip(*ends, strict=True))
        return cls(share, share - less, share + more)

    def verdict(self, wanted: float, contradicted_below: float) -> str:
        if self.low is None or self.high is None:
            return INCONCLUSIVE
        less = self.high < contradicted_below or self.high <= 0
        return CONTRADICTED if less else SUPPORTED if self.low >= wanted else INCONCLUSIVE

    def __str__(self) -> str:
        sign, way = (1, "lower") if self.share >= 0 else (-1, "higher")
        share, *ends = (
            number(100 * sign * end) for end in (self.share, self.low, self.high) if end is not None
        )
        interval = f" (95% interval {' to '.join(ends[::sign])})" if ends else ""
        return f"{share}% {way}{interval}"


def _latencies(results: Results, method: str, merged: bool) -> tuple[Profile | None, Timed]:
    """Return the profile, and the latencies of a model on each of its tasks."""
    profile = results.profile
    found = [
        (costs, costs.inference_of(method, merged)) for costs in (profile.tasks if profile else ())
    ]
    return profile, [(costs, row) for costs, row in found if row]


def _lora_and_full(results: Results) -> tuple[str, str]:
    return results.study.role("lora"), results.study.role("full_ft")


def _ratios(rows: Timed) -> list[Estimate]:
    """Return the ratios of every kind of latency on every task."""
    return [
        of_ratio(f"{costs.task}, {name},", getattr(row, kind).ratio)
        for costs, row in rows
        for kind, name in KINDS.items()
    ]


def _ends(found: Iterable[Estimate]) -> list[tuple[float, float]]:
    return [estimate.interval for estimate in found if estimate.interval]


def _equal(found: Estimate) -> bool:
    """Say whether a ratio's interval lies within the margin."""
    return found.interval is not None and (
        found.interval[0] > 1 / MARGIN and found.interval[1] < MARGIN
    )


def _rounds_needed(found: list[Estimate], rounds: int) -> str:
    """Say how many rounds would tell every ratio from the margin, if all else stays."""
    needed = 0.0
    for estimate in found:
        if estimate.interval is None:
            return ""
        low, high = estimate.interval
        distance = abs(math.log(MARGIN) - abs(math.log(estimate.value)))
        needed = max(needed, rounds * (math.log(high / low) / 2 / max(distance, 1e-9)) ** 2)
    known = rounds < needed < 100 * rounds
    return f"About {math.ceil(needed)} rounds, if medians and spreads stay." if known else ""


def _about(results: Results, profile: Profile, recipe: Recipe) -> str:
    """Say what was measured otherwise than trained, and who else used the machine."""
    return measured_with(recipe, results.study) + busy(profile.machine)


def _no_profile(results: Results, *methods: str) -> Finding:
    names = " and ".join(results.study.label(name).replace("Full", "full") for name in methods)
    measured = f"The profile does not measure {names}"
    return not_measured(measured if results.profile else "The study has no profile")
