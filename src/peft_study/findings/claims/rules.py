"""The rule of each published claim: which of the study's results decide it, and how."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from peft_study.findings.claims import costs
from peft_study.findings.claims import estimates as est
from peft_study.findings.claims.estimates import Finding, judge, listed, not_measured
from peft_study.findings.comparisons import tested
from peft_study.findings.published import first_epoch
from peft_study.findings.results import Results
from peft_study.findings.wording import measured_with, number
from peft_study.records.costs import Recipe

POINT = 0.01  # of a metric, which is a fraction
ROBERTA = "roberta-base"
QUERY_VALUE, ALL_FOUR = ("query", "value"), ("query", "key", "value", "output")
VALUE_OUTPUT, QUERY_KEY = ("value", "output"), ("query", "key")

Weights = tuple[str, ...]
Pairs = list[tuple[Weights, int, Weights, int]]  # weights and rank of a cell, and of another


def scores(other: str, lower: float, upper: float, results: Results) -> Finding:
    """Judge our LoRA minus another method on every task, by bounds in points."""
    methods = _named(results, "lora", other)
    rows = results.main_differences_of(*methods)
    found = [
        estimate
        for row in rows
        for estimate in est.of_paired(row.task, row, unlearned=_unlearned(results, row.unlearned))
    ]
    unlike = {row.task: f"{row.task}: no seed that both have" for row in rows if row.n == 0}
    missing = _gaps(results, *methods) + list(unlike.values())
    if not found:
        return _not_measured(results, *methods, missing=missing)
    tasks = tuple(estimate.name for estimate in found)
    missing += _uncompared(results, (*tasks, *unlike), *methods)
    text = f"LoRA minus {_label(results, methods[1])}: {listed(found)}"
    return judge(text, found, tasks, lower * POINT, upper * POINT, missing)


def parameters(results: Results) -> Finding:
    """Judge by the exact counts on RoBERTa-base, the source's model, which every study has."""
    counts = results.parity.counts.get(ROBERTA, {}) if results.parity else {}
    settings = results.parity.settings if results.parity else {}
    there = {of: counts[name] for name, of in settings.items() if name in counts}
    part, whole = there.get(Recipe("lora", 8, QUERY_VALUE)), there.get(Recipe("full_ft"))
    if not part or not whole:
        return not_measured("There are no counts of RoBERTa-base's parameters")
    fewer = 1 - part.adapter / whole.total
    text = f"On RoBERTa-base {_fewer(part.adapter, whole.total)}"
    for task in results.study.main_metrics:
        methods = _named(results, "lora", "full_ft")
        cells = (results.cells.get((name, task)) for name in methods)
        lora, full = (cell.trainable if cell else None for cell in cells)
        if lora and full:
            text += f"; on {results.study.model.short}, this study's model, "
            text += _fewer(lora.adapter, full.total)
            break
    supported = round(fewer, 3) >= 0.997  # the source's figure has one decimal
    return Finding(est.decided(not supported, supported), f"{text}.")


def energy(results: Results) -> Finding:
    iso, profile = results.iso_accuracy, results.profile
    methods = lora, full = _named(results, "lora", "full_ft")
    reason = ((iso and iso.energy.reason) or "there is no profile").rstrip(".")
    if not iso or not iso.energy.source:
        return not_measured(f"Not measured: {reason}")
    if not iso.energy.measured:
        return not_measured(f"The energy is an estimate from assumed watts, not measured: {reason}")
    runs = [run for run in iso.runs if run.method in methods]
    tasks = tuple(dict.fromkeys(run.task for run in runs if run.joules is not None))
    found, missing = [], _gaps(results, *methods)
    for task in tasks:
        spent: dict[str, dict[str, float]] = {method: {} for method in methods}
        for run in (run for run in runs if run.task == task):
            name = f"{task}, {_label(results, run.method)}, seed {run.seed}"
            if run.joules is None:
                missing.append(f"{name}: score never reached")
            else:
                spent[run.method][str(run.seed)] = run.joules
        both = [joules - spent[full][s] for s, joules in spent[lora].items() if s in spent[full]]
        difference = tested(np.array(both)[:, None], results.study.equivalence_margin)
        found += est.of_paired(task, difference, "J", unlearned_on(results, task, methods))
    if not found:
        return not_measured("No pair of runs has joules", missing)
    text = f"LoRA minus full fine-tuning, measured by {iso.energy.source}: {listed(found)}"
    rows = [row for costs in (profile.tasks if profile else ()) if (row := costs.energy_of(lora))]
    text += measured_with(rows[0].recipe, results.study) if rows else ""
    return judge(text, found, tasks, lower=0, missing=missing)


def rank_1(results: Results) -> Finding:
    sweep = results.study.sweep
    ranks = [rank for rank in sweep.ranks if rank in (8, 64) and 1 in sweep.ranks]
    return _swept(results, [(w, 1, w, rank) for w in sweep.weights for rank in ranks], -1)


def weights(these: Weights, others: Weights, lower: float, results: Results) -> Finding:
    """Judge LoRA on some weights minus LoRA on others at every rank, by a bound in points."""
    sweep = results.study.sweep
    both = {frozenset(these), frozenset(others)} <= set(map(frozenset, sweep.weights))
    return _swept(results, [(these, r, others, r) for r in sweep.ranks if both], lower)


def stability(results: Results) -> Finding:
    methods = _named(results, "lora", "adapter_h")
    found, seen, missing = [], [], _gaps(results, *methods)
    for task in results.study.main_metrics:
        ours, theirs = (first_epoch(results, task, method) for method in methods)
        if ours and theirs:
            seen.append(task)
            compared = est.of_variations(task, theirs, ours)
            names = unlearned_on(results, task, methods)
            found += [replace(estimate, unlearned=names) for estimate in compared]
            missing += [] if compared else [f"{task}: no coefficient of variation"]
    missing += _uncompared(results, seen, *methods)
    if not found:
        return _not_measured(results, *methods, missing=missing)
    text = f"AdapterH's coefficient of variation relative to LoRA's: {listed(found)}"
    return judge(text, found, tuple(e.name for e in found), lower=1, missing=missing)


def start(results: Results) -> Finding:
    init = results.study.mnli_init
    tasks = ", ".join(init.tasks) if init.mode != "none" else ""
    has = f"{tasks} started from {init.task}" if tasks else "no task started from another"
    return not_measured(f"A study has one way to start, and here {has}")


def _swept(results: Results, pairs: Pairs, lower: float) -> Finding:
    """Judge the first cell of each pair minus the second, paired by seed, by a bound in points."""
    if not pairs:
        return not_measured("No sweep of this study compares them")
    task = results.study.sweep.task
    differences = {  # however their weights are ordered
        (frozenset(r.weights), r.rank, frozenset(r.reference_weights), r.reference_rank): r
        for r in results.statistics.swept
    }
    found, missing = [], []
    for these, rank, others, other_rank in pairs:
        name = f"{'+'.join(these)} at rank {rank} minus "
        name += f"rank {other_rank}" if these == others else "+".join(others)
        row = differences.get((frozenset(these), rank, frozenset(others), other_rank))
        slow = "a cell has not learned" if row and row.unlearned else ""
        compared = est.of_paired(name, row, unlearned=slow) if row else []
        found += compared
        missing += [] if compared else [name]
    if not found:
        return not_measured("The sweep has no results", missing)
    return judge(f"On {task}: {listed(found)}", found, (task,), lower * POINT, missing=missing)


def _named(results: Results, kind: str, other: str) -> tuple[str, str]:
    """Return the names of the methods that have two roles: see `StudyInfo.role`."""
    return results.study.role(kind), results.study.role(other)


def _gaps(results: Results, *methods: str) -> list[str]:
    """Name the cells of these methods that have no results, and say why."""
    gaps = [gap for gap in results.statistics.gaps if gap.method in methods]
    return [f"{gap.task}, {_label(results, gap.method)}: {gap.reason}" for gap in gaps]


def unlearned_on(results: Results, task: str, methods: Iterable[str]) -> str:
    """Say which of these methods' cells, those of the sweep apart, have not learned a task."""
    cells = [of for of in results.statistics.unlearned if of.whole and of.rank is None]
    slow = {of.method for of in cells if of.task == task}
    return _unlearned(results, [name for name in methods if name in slow])


def _unlearned(results: Results, methods: Iterable[str]) -> str:
    """Say which methods have not learned; "" of none."""
    names = " and ".join(_label(results, method) for method in methods)
    return f"{names} {'have' if ' and ' in names else 'has'} not learned" if names else ""


def _uncompared(results: Results, tasks: Sequence[str], *methods: str) -> list[str]:
    """Name the tasks besides `tasks` on which no gap says why these methods are not compared.

    A task on which one of them is not trained by design is not missing.
    """
    study = results.study
    known = {*tasks, *(gap.task for gap in results.statistics.gaps if gap.method in methods)}
    mine = [task for task in study.main_metrics if all(study.trains(m, task) for m in methods)]
    return [f"{task}: not compared" for task in mine if task not in known]


def _not_measured(results: Results, *methods: str, missing: Sequence[str] = ()) -> Finding:
    absent = [_label(results, method) for method in methods if not results.study.method(method)]
    text = f"The study has no {' and no '.join(absent)}" if absent else "No task has both"
    return not_measured(text, missing or _gaps(results, *methods))


def _label(results: Results, method: str) -> str:
    """Return a method's label within a sentence, also of one that the study does not have."""
    return results.study.label(method).replace("Full", "full")


def _fewer(part: int, whole: int) -> str:
    """Say how many fewer there are, rounded down: 99.6999% is not shown as 99.700%."""
    down = math.floor((1 - part / whole) * 1e5) / 1e3
    return f"{part:,} instead of {whole:,}, {number(down, '.3f')}% fewer"


STATISTICS, PROFILE = ("metrics/statistics.json",), ("metrics/profile.json",)
SWEEP, ENERGY = ("metrics/statistics.json",), ("metrics/profile.json", "metrics/iso_accuracy.json")

# By claim: its rule, and the files that this reads.
RULES: dict[str, tuple[Callable[[Results], Finding], tuple[str, ...]]] = {
    "lora_within_2_percent": (partial(scores, "full_ft", -2, math.inf), STATISTICS),
    "ours_within_1_1_points_of_loralib": (partial(scores, "loralib_lora", -1.1, 1.1), STATISTICS),
    "fewer_parameters_99_7": (parameters, ("metrics/parity.json", "metrics/runs")),
    "no_overhead_when_merged": (costs.merged_latency, PROFILE),
    "adapters_add_latency": (costs.adapter_latency, PROFILE),
    "memory_38_percent_lower": (partial(costs.memory, "mean", 0.38, 0.38), PROFILE),
    # "Up to" two thirds: less than that contradicts nothing, as long as something is saved.
    "memory_two_thirds_lower": (partial(costs.memory, "peak", 2 / 3, 0), PROFILE),
    "epochs_40_to_48_percent_faster": (costs.epochs, PROFILE),
    "energy_not_lower": (energy, ENERGY),
    "rank_1_within_1_point": (rank_1, SWEEP),
    "query_value_as_good_as_all_four": (partial(weights, QUERY_VALUE, ALL_FOUR, -0.5), SWEEP),
    "value_output_better_than_query_key": (partial(weights, VALUE_OUTPUT, QUERY_KEY, 0), SWEEP),
    "more_stable_than_adapters_in_first_epoch": (stability, ("metrics/stability.json",)),
    "mnli_init_helps_rte_most": (start, ("params.yaml",)),
}
