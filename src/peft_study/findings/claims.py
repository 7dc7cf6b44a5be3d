"""What published studies claim, and whether this study supports or contradicts it.

`claims.yaml` has the words: what each source says, how it is read and what is compared. Here is a
rule for each of them. Intervals decide, never point estimates: where they do not, a claim is
inconclusive; where a study has no data, it is not measured.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from scipy import stats

from peft_study.findings.aggregate import METHOD_NAMES
from peft_study.findings.published import first_epoch
from peft_study.findings.results import Results
from peft_study.findings.statistics import by_seed, scores, t_reach

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_MEASURED = "inconclusive", "not measured"
POINT = 0.01  # of a metric, which is a fraction
ADAPTERS_OVERHEAD = 1.2  # what Hu et al. 2021, table 1, find of adapters at batch size 1
MOST_SEEDS = 1_000  # more than that is no advice


@dataclass(frozen=True)
class Estimate:
    """A difference or a ratio with its 95% interval, which is None where there is none.

    `n` counts seeds or, for ratios of times, 0: their rounds are not what a study adds to.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int = 0


@dataclass(frozen=True)
class Finding:
    """A verdict, the sentence that gives its figures, and what it needs besides `settles`."""

    verdict: str
    finding: str
    needs: str = ""
    tasks: tuple[str, ...] = ()


Rule = Callable[[Results], Finding]
RULES: dict[str, tuple[Rule, list[str]]] = {}


def rule(name: str, *files: str) -> Callable[[Rule], Rule]:
    """Register the rule of a claim, and the files of `metrics/` that it reads."""

    def register(function: Rule) -> Rule:
        RULES[name] = function, [f"metrics/{file}.json" for file in files]
        return function

    return register


def load_claims() -> list[dict[str, Any]]:
    """Return the entries of `claims.yaml`."""
    text = Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    return list(YAML(typ="safe", pure=True).load(text))


def claims(results: Results) -> list[dict[str, Any]]:
    """Judge every published claim by a study's results.

    Returns:
        For each entry of `claims.yaml`, in its order: `id`, `title`, `source`, `statement`,
        `quantity`;
        `verdict`: supported, contradicted, inconclusive or not measured; `finding`, a sentence with
        the figures; `settles`, what would decide it, None where it is decided; `differs`, how
        model, data and hardware differ from the source's, None where they do not; `files`.
    """
    judged = []
    for claim in load_claims():
        function, files = RULES[claim["id"]]
        found = function(results)
        open_question = found.verdict in (INCONCLUSIVE, NOT_MEASURED)
        settles = f"{found.needs} {claim['settles']}".strip() if open_question else None
        judged.append(
            {key: claim[key] for key in ("id", "title", "source", "statement", "quantity")}
            | {"verdict": found.verdict, "finding": found.finding, "settles": settles}
            | {"differs": _differs(claim["claimed_on"], results, found.tasks), "files": files}
        )
    return judged


@rule("lora_within_2_percent", "statistics")
def _lora_within_2_percent(results: Results) -> Finding:
    return _judge_tasks(results, "full_ft", lower=-2 * POINT)


@rule("ours_within_1_1_points_of_loralib", "statistics")
def _ours_within_1_1_points_of_loralib(results: Results) -> Finding:
    return _judge_tasks(results, "loralib_lora", lower=-1.1 * POINT, upper=1.1 * POINT)


@rule("fewer_parameters_99_7", "summary", "parity")
def _fewer_parameters_99_7(results: Results) -> Finding:
    found = {
        task: (cells["lora"]["trainable"]["adapter"], cells["full_ft"]["trainable"]["total"])
        for task, cells in results.summary.items()
        if {"lora", "full_ft"} <= set(cells)
    }
    if not found:
        return _not_measured(results, "lora", "full_ft")
    fewer, ours, full = min((1 - ours / full, ours, full) for ours, full in found.values())
    text = f"{ours:,} instead of {full:,}, {_percent_down(fewer)} fewer"
    counts = results.parity.get("counts", {}).get("roberta-base", {})
    there = "lora r=8 query+value", "full_ft"
    if set(there) <= set(counts):
        ours, full = counts[there[0]]["adapter"], counts[there[1]]["total"]
        text += f"; on RoBERTa-base, the source's model, {ours:,} instead of {full:,} would be "
        text += f"{_percent_down(1 - ours / full)} fewer"
    # The source's figure has one decimal.
    return Finding(
        SUPPORTED if round(fewer, 3) >= 0.997 else CONTRADICTED, text + ".", tasks=tuple(found)
    )


@rule("no_overhead_when_merged", "profile")
def _no_overhead_when_merged(results: Results) -> Finding:
    found = _latency(results, "lora merged")
    if not found:
        return _no_profile(results, "lora")
    text = f"Latency relative to the model without adapters: {_list(found, _ratio_and_width)}"
    ends = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    verdict = INCONCLUSIVE
    if any(low > 1 for low, _ in ends):
        verdict = CONTRADICTED
    elif len(ends) == len(found) == 2:
        if all(low <= 1 <= high < ADAPTERS_OVERHEAD for low, high in ends):
            verdict = SUPPORTED
        text += f"; an overhead of up to {100 * (max(h for _, h in ends) - 1):.0f}% is not excluded"
    return Finding(verdict, f"{text}{_disturbed(results)}.", tasks=_profiled(results))


@rule("adapters_add_latency", "profile")
def _adapters_add_latency(results: Results) -> Finding:
    found = _latency(results, "adapter_h")
    one_by_one = [estimate for estimate in found if estimate.name == "one by one"]
    if not one_by_one:
        return _no_profile(results, "adapter_h")
    verdict = _verdict(one_by_one, 1, math.inf)
    text = f"Latency relative to the model without adapters: {_list(found, _ratio)}"
    return Finding(verdict, f"{text}{_disturbed(results)}.", tasks=_profiled(results))


@rule("memory_38_percent_lower", "profile")
def _memory_38_percent_lower(results: Results) -> Finding:
    return _judge_memory(results, wanted=0.38, contradicted_below=0.38)


@rule("memory_two_thirds_lower", "profile")
def _memory_two_thirds_lower(results: Results) -> Finding:
    # "Up to" two thirds: less than that contradicts nothing, as long as something is saved.
    return _judge_memory(results, wanted=2 / 3, contradicted_below=0)


@rule("epochs_40_to_48_percent_faster", "profile")
def _epochs_40_to_48_percent_faster(results: Results) -> Finding:
    training = results.profile.get("training", {})
    # Without full fine-tuning the profile's ratios are to LoRA itself.
    if not {"lora", "full_ft"} <= set(training):
        return _no_profile(results, "lora", "full_ft")
    found = _from_ratio("a step", training["lora"]["ratio"])
    text = f"With LoRA a step takes {_number(found, '.3f')} of full fine-tuning's time"
    if found.low is not None and found.high is not None:
        text += f", {100 * (1 - found.high):.0f}% to {100 * (1 - found.low):.0f}% less"
    verdict = _verdict([found], -math.inf, 0.65)
    return Finding(verdict, f"{text}{_disturbed(results)}.", tasks=_profiled(results))


@rule("energy_not_lower", "profile", "iso_accuracy")
def _energy_not_lower(results: Results) -> Finding:
    energy = results.iso_accuracy.get("energy") or results.profile.get("energy") or {}
    source, reason = energy.get("source"), energy.get("reason") or "there is no profile"
    if source is None:
        return Finding(NOT_MEASURED, f"Not measured: {reason.rstrip('.')}.")
    if "estimate" in source:
        text = f"The energy is an estimate from assumed watts, not measured: {reason.rstrip('.')}."
        return Finding(NOT_MEASURED, text)
    runs = {
        (run["task"], run["method"], str(run["seed"])): run
        for run in results.iso_accuracy.get("runs", [])
        if run["method"] in ("lora", "full_ft")
    }
    tasks = tuple(dict.fromkeys(key[0] for key, run in runs.items() if run["joules"] is not None))
    found, missing = [], _gaps(results, "lora", "full_ft")
    for task in tasks:
        joules: dict[str, dict[str, float]] = {"lora": {}, "full_ft": {}}
        for (_, method, seed), run in ((key, run) for key, run in runs.items() if key[0] == task):
            if run["joules"] is not None:
                joules[method][seed] = run["joules"]
            else:
                missing.append(f"{task}, {_shown(method)}, seed {seed}: score never reached")
        found += _paired(task, joules["lora"], joules["full_ft"])
    if not found:
        return Finding(NOT_MEASURED, _sentence("No pair of runs has joules", missing))
    verdict = _verdict(found, 0, math.inf, missing)
    text = f"LoRA minus full fine-tuning, measured by {source}: {_list(found, _joules)}"
    return Finding(verdict, _sentence(text, missing), _needs(found, 0, math.inf), tasks)


@rule("rank_1_within_1_point", "runs/sweep")
def _rank_1_within_1_point(results: Results) -> Finding:
    sweep = results.study.get("sweep") or {}
    ranks = [rank for rank in sweep.get("ranks", []) if rank in (8, 64)]
    pairs = [
        ((weights, 1), (weights, rank))
        for weights in sweep.get("weights", [])
        for rank in ranks
        if 1 in sweep["ranks"]
    ]
    return _judge_sweep(results, pairs, -POINT)


@rule("query_value_as_good_as_all_four", "runs/sweep")
def _query_value_as_good_as_all_four(results: Results) -> Finding:
    pairs = _at_every_rank(results, "query+value", "query+key+value+output")
    return _judge_sweep(results, pairs, -0.5 * POINT)


@rule("value_output_better_than_query_key", "runs/sweep")
def _value_output_better_than_query_key(results: Results) -> Finding:
    return _judge_sweep(results, _at_every_rank(results, "value+output", "query+key"), 0.0)


@rule("more_stable_than_adapters_in_first_epoch", "stability")
def _more_stable_than_adapters_in_first_epoch(results: Results) -> Finding:
    found, missing = [], _gaps(results, "lora", "adapter_h")
    for task in results.study["main_metrics"]:
        ours, theirs = (first_epoch(results, task, method) for method in ("lora", "adapter_h"))
        if ours and theirs and ours["cv"] and theirs["cv"]:
            found.append(_ratio_of_variations(task, theirs, ours))
        elif ours and theirs:
            missing.append(f"{task}: no coefficient of variation")
        elif not any(gap.startswith(f"{task}, ") for gap in missing):
            missing.append(f"{task}: not compared")
    if not found:
        return _not_measured(results, "lora", "adapter_h", missing=missing)
    text = f"AdapterH's coefficient of variation relative to LoRA's: {_list(found, _ratio)}"
    verdict = _verdict(found, 1, math.inf, missing)
    return Finding(verdict, _sentence(text, missing), tasks=tuple(e.name for e in found))


@rule("mnli_init_helps_rte_most", "summary")
def _mnli_init_helps_rte_most(results: Results) -> Finding:
    init = results.study["mnli_init"]
    tasks = ", ".join(init["tasks"]) if init["mode"] != "none" else ""
    has = f"{tasks} started from {init['task']}" if tasks else "no task started from another"
    return Finding(NOT_MEASURED, f"A study has one way to start, and here {has}.")


def _judge_tasks(
    results: Results, reference: str, lower: float, upper: float = math.inf
) -> Finding:
    """Judge our LoRA minus `reference` on every task."""
    rows = [
        row
        for row in results.main_differences
        if (row["method"], row["reference"]) == ("lora", reference)
    ]
    missing = _gaps(results, "lora", reference)
    if not rows:
        return _not_measured(results, "lora", reference, missing=missing)
    found = [Estimate(r["task"], r["mean"], r["low"], r["high"], r["n"]) for r in rows]
    compared = [*(e.name for e in found), *(gap.partition(",")[0] for gap in missing)]
    main = results.study["main_metrics"]
    missing += [f"{task}: not compared" for task in main if task not in compared]
    text = f"LoRA minus {_shown(reference)}: {_list(found, _points)}"
    needs = _needs(found, lower, upper)
    tasks = tuple(estimate.name for estimate in found)
    return Finding(_verdict(found, lower, upper, missing), _sentence(text, missing), needs, tasks)


def _judge_memory(results: Results, wanted: float, contradicted_below: float) -> Finding:
    """Judge the memory that LoRA saves, peak and mean, the libraries apart."""
    memory = results.profile.get("memory", {})
    if not {"lora", "full_ft"} <= set(memory):
        return _no_profile(results, "lora", "full_ft")
    saved, texts = [], []
    for kind in ("peak", "mean"):
        ours, full = (
            memory[method][kind] - memory[method]["parts"].get("libraries", 0)
            for method in ("lora", "full_ft")
        )
        saved.append(1 - ours / full)
        change = f"{100 * abs(saved[-1]):.1f}% {'lower' if saved[-1] >= 0 else 'higher'}"
        texts.append(f"{kind} {change}, {ours / 1e6:,.0f} MB instead of {full / 1e6:,.0f} MB")
    verdict = INCONCLUSIVE
    if min(saved) >= wanted:
        verdict = SUPPORTED
    elif max(saved) < contradicted_below or max(saved) <= 0:
        verdict = CONTRADICTED
    apart = memory["full_ft"]["parts"].get("libraries", 0)
    without = f", without the libraries' {apart / 1e6:,.0f} MB" if apart else ""
    text = f"With LoRA{without}: {'; '.join(texts)}; single measurements."
    return Finding(verdict, text, tasks=_profiled(results))


Cell = tuple[str, int]


def _judge_sweep(results: Results, pairs: list[tuple[Cell, Cell]], lower: float) -> Finding:
    """Judge the first cell of each pair minus the second, paired by seed."""
    if not pairs:
        return Finding(NOT_MEASURED, "No sweep of this study compares them.")
    sweep = results.study["sweep"]
    cells, found, missing = _sweep_scores(results), [], []
    for (weights, rank), (others, other_rank) in pairs:
        name = f"{weights} at rank {rank} minus "
        name += f"rank {other_rank}" if weights == others else others
        pair = [cells.get(_cell(*cell), {}) for cell in ((weights, rank), (others, other_rank))]
        estimates = _paired(name, pair[0], pair[1])
        found += estimates
        if not estimates:
            missing.append(name)
    if not found:
        return Finding(NOT_MEASURED, _sentence("The sweep has no results", missing))
    verdict = _verdict(found, lower, math.inf, missing)
    text = f"On {sweep['task']}: {_list(found, _points)}"
    needs = _needs(found, lower, math.inf)
    return Finding(verdict, _sentence(text, missing), needs, (sweep["task"],))


def _at_every_rank(results: Results, weights: str, others: str) -> list[tuple[Cell, Cell]]:
    sweep = results.study.get("sweep") or {}
    swept = {_cell(names, 0) for names in sweep.get("weights", [])}
    if not {_cell(weights, 0), _cell(others, 0)} <= swept:
        return []
    return [((weights, rank), (others, rank)) for rank in sweep["ranks"]]


def _cell(weights: str, rank: int) -> tuple[frozenset[str], int]:
    """Return what a cell of the sweep is, however its weights are ordered."""
    return frozenset(weights.split("+")), rank


def _sweep_scores(results: Results) -> dict[tuple[frozenset[str], int], dict[str, float]]:
    """Return the reported scores of every cell of the sweep, by seed."""
    by_cell = {}
    for name, found in results.sweep_runs.items():
        weights, _, rank = name.rpartition("-r")
        metric = results.study["main_metrics"][found["task"]]
        by_cell[_cell(weights, int(rank))] = scores(found, metric, results.study["report"])
    return by_cell


def _paired(name: str, ours: dict[str, float], theirs: dict[str, float]) -> list[Estimate]:
    """Return the mean difference over common seeds with its t interval; [] without any."""
    differences = by_seed(ours, theirs)
    if not differences:
        return []
    mean, reach, n = statistics.fmean(differences), t_reach(differences), len(differences)
    if reach is None:
        return [Estimate(name, mean, None, None, n)]
    return [Estimate(name, mean, mean - reach, mean + reach, n)]


def _ratio_of_variations(name: str, above: dict[str, Any], below: dict[str, Any]) -> Estimate:
    """Return the ratio of two coefficients of variation, with the interval of the F test."""
    value = above["cv"] / below["cv"]
    high, low = (
        float(stats.f.ppf(p, above["n"] - 1, below["n"] - 1)) ** 0.5 for p in (0.025, 0.975)
    )
    return Estimate(name, value, value / low, value / high, min(above["n"], below["n"]))


def _latency(results: Results, model: str) -> list[Estimate]:
    """Return a model's latency relative to the pretrained model's, as far as it was measured."""
    found = results.profile.get("inference", {}).get(model, {})
    names = {"batch_1": "one by one", "batch_64": "in batches of 64"}
    return [_from_ratio(n, found[kind]["ratio"]) for kind, n in names.items() if kind in found]


def _from_ratio(name: str, ratio: dict[str, Any]) -> Estimate:
    return Estimate(name, ratio["median"], ratio["low"], ratio["high"])


def _verdict(
    found: list[Estimate], lower: float, upper: float, missing: list[str] | None = None
) -> str:
    """Judge by intervals: all between the bounds, with none missing, or some wholly outside."""
    ends = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    if any(high < lower or low > upper for low, high in ends):
        return CONTRADICTED
    inside = all(lower < low and high < upper for low, high in ends)
    return SUPPORTED if inside and len(ends) == len(found) and not missing else INCONCLUSIVE


def _needs(found: list[Estimate], lower: float, upper: float) -> str:
    """Say how many seeds would decide, if means and spreads stay as they are."""
    inside: list[float] = []
    outside: list[float] = []
    for estimate in found:
        if estimate.low is None or estimate.high is None:
            return "Two seeds or more: one has no interval."
        distance = min(abs(estimate.value - bound) for bound in (lower, upper))
        half = (estimate.high - estimate.low) / 2
        seeds = estimate.n * (half / distance) ** 2 if distance else math.inf
        (inside if lower < estimate.value < upper else outside).append(seeds)
    # One interval outside is enough to contradict; to support, all must be inside.
    seeds = min(outside) if outside else max(inside)
    if seeds > MOST_SEEDS or all(seeds <= estimate.n for estimate in found):
        return ""
    return f"About {math.ceil(seeds)} seeds, if means and spreads stay as they are."


def _gaps(results: Results, *methods: str) -> list[str]:
    """Name the cells of these methods that have no results."""
    return [
        f"{gap['task']}, {_shown(gap['method'])}: no results"
        for gap in results.statistics.get("gaps", [])
        if gap["method"] in methods
    ]


def _not_measured(results: Results, *methods: str, missing: list[str] | None = None) -> Finding:
    absent = [_shown(method) for method in methods if method not in results.study["methods"]]
    text = f"The study has no {' and no '.join(absent)}" if absent else "No task has both"
    return Finding(NOT_MEASURED, _sentence(text, missing or _gaps(results, *methods)))


def _no_profile(results: Results, *methods: str) -> Finding:
    if not results.profile:
        return Finding(NOT_MEASURED, "The study has no profile.")
    names = " and ".join(_shown(method) for method in methods)
    return Finding(NOT_MEASURED, f"The profile does not measure {names}.")


def _profiled(results: Results) -> tuple[str, ...]:
    return (results.profile["task"],) if "task" in results.profile else ()


def _disturbed(results: Results) -> str:
    """Say what share of the machine others used while it was measured, if it is worth saying."""
    share = results.profile.get("machine", {}).get("other_cpu_share") or 0.0
    return f"; other programs used {100 * share:.0f}% of the processors" if share >= 0.05 else ""


def _differs(claimed: dict[str, Any], results: Results, tasks: tuple[str, ...]) -> str | None:
    """Say how model, data and hardware differ from the claim's, where the claim names them."""
    study = results.study
    machine = results.profile.get("machine", {})
    hardware = machine.get("gpu") or (machine and f"{machine['cpu']}, {machine['cores']} cores")
    model = study["model"]["name"].rpartition("/")[-1].lower()
    here = tasks or tuple(study["main_metrics"])
    texts = []
    for kind, ours, theirs, same in (
        ("model", model, claimed["models"], model in claimed["models"]),
        ("data", ", ".join(here), claimed["tasks"], set(here) == set(claimed["tasks"])),
        ("hardware", hardware, claimed["hardware"], hardware in claimed["hardware"]),
    ):
        if ours and theirs and not same:
            texts.append(f"{kind} {ours} (the source: {', '.join(theirs)})")
    return f"Here {'; '.join(texts)}." if texts else None


def _shown(method: str) -> str:
    return METHOD_NAMES.get(method, method).replace("Full", "full")


def _sentence(text: str, missing: list[str]) -> str:
    return "; ".join([text, *missing]) + "."


def _list(found: list[Estimate], show: Callable[[Estimate], str]) -> str:
    return "; ".join(f"{estimate.name} {show(estimate)}" for estimate in found)


def _number(found: Estimate, form: str, unit: str = "", scale: float = 1.0) -> str:
    """Render an estimate with its interval and, if there are any, its seeds."""
    seeds = [f"n = {found.n}"] if found.n else []
    if found.low is None or found.high is None:
        interval = "no interval"
    else:
        interval = f"95% interval {scale * found.low:{form}} to {scale * found.high:{form}}"
    return f"{scale * found.value:{form}}{unit} ({', '.join([interval, *seeds])})"


def _points(found: Estimate) -> str:
    return _number(found, "+.2f", " points", 100)


def _joules(found: Estimate) -> str:
    return _number(found, "+,.0f", " J")


def _ratio(found: Estimate) -> str:
    return _number(found, ".3f")


def _ratio_and_width(found: Estimate) -> str:
    wide = "" if found.low is None or found.high is None else f", {found.high - found.low:.3f} wide"
    return f"{_number(found, '.3f')}{wide}"


def _percent_down(share: float) -> str:
    """Render a share as a percentage, rounded down: 99.6999% is not shown as 99.700%."""
    return f"{math.floor(share * 1e5) / 1e3:.3f}%"
