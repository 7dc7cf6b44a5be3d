"""Records of a study that nobody ran, for tests of the findings: each with defaults to replace."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from peft_study.findings.chance import Values
from peft_study.findings.results import Results
from peft_study.methods import METHODS
from peft_study.records import costs
from peft_study.records import study as info
from peft_study.records.costs import Latency, Percentiles, Profile, Ratio, Recipe
from peft_study.records.scores import (
    Cell,
    Chance,
    Counts,
    CrossFitted,
    Difference,
    Evaluation,
    RunScores,
    Statistics,
)
from peft_study.records.study import MethodInfo, StudyInfo

STATISTICS = (
    *("gaps", "cells", "differences", "swept", "unlearned", "overall", "over_tasks", "averages"),
)
TRAIN = {"epochs": 2, "device": "cpu", "precision": "float32"}
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16.0, "dropout": 0.0, "targets": ("query", "value")},
    "adapter_h": {"bottleneck": 16, "activation": "gelu"},
    "full_ft": {},
}


def method(name: str, **settings: Any) -> MethodInfo:
    """Return a method of the table, with the default study's settings unless `settings` say so."""
    row, place = METHODS[name], list(METHODS).index(name)
    found = SETTINGS[str(row.block)] | settings
    about = name, row.label, row.family, row.family, place, row.exported, found
    return MethodInfo(*about, kind=row.module)


def study(
    methods: tuple[str, ...] = ("lora", "adapter_h", "full_ft"),
    metrics: dict[str, str] | None = None,
    **changes: Any,
) -> StudyInfo:
    """Return a study of `methods` on the tasks of `metrics` (task to main metric)."""
    found = StudyInfo(
        study="made_up",
        model=info.ModelInfo("minilm", None, 64),
        data=info.DataInfo("opinions", None, 0),
        seeds=(1, 2, 3),
        methods=tuple(method(name) for name in methods),
        tasks=tuple(
            info.TaskInfo(task, metric, ("no", "yes") if metric == "accuracy" else None)
            for task, metric in (metrics or {"film": "accuracy", "rating": "pearson"}).items()
        ),
        report="best",
        mnli_init=info.InitInfo("none", "product", ()),
        sweep=info.SweepInfo("film", (), ()),
        equivalence_margin=0.02,
        iso_margin=0.005,
        published=(),
        params={"study": "made_up", "train": TRAIN, "seeds": [1, 2, 3]},
        packages={"torch": "2.13.0"},
        known_labels={name: row.label for name, row in METHODS.items()},
    )
    return replace(found, **changes)


def statistics(**parts: Any) -> Statistics:
    """Return statistics that hold `parts` and nothing else."""
    nothing: dict[str, Any] = dict.fromkeys(STATISTICS, ())
    return Statistics(**(nothing | {"baselines": {}} | parts))


def results(about: StudyInfo | None = None, **parts: Any) -> Results:
    """Return results that hold a study and `parts`, and nothing else."""
    given: dict[str, Any] = {"study": about or study(), "statistics": statistics()}
    return Results(**(given | parts))


def difference(
    task: str,
    low: float | None,
    high: float | None,
    equivalent: bool | None = False,
    **changes: Any,
) -> Difference:
    """Return LoRA minus full fine-tuning on `task`, its mean in the middle of its interval."""
    mean = 0.0 if low is None or high is None else (low + high) / 2
    values: dict[str, Any] = {"n": 3, "mean": mean, "margin": 0.02, "low": low, "high": high}
    values |= {"task": task, "metric": "accuracy", "evaluation": "cross_fitted"}
    values |= {"method": "lora", "reference": "full_ft", "family": "lora_full"}
    if low is not None and high is not None:
        values["p_holm"] = 0.01 if low > 0 or high < 0 else 0.5
    if equivalent is not None:
        values["equivalence_holm"] = 0.01 if equivalent else 0.5
    found = Difference(**(values | changes))
    if found.low is None or found.high is None or found.chance:
        return found
    # As if seeds alone were chance.
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, found.n - 1)
    of_seeds = 400 * found.n * float(error) ** 2
    return replace(found, chance=Chance(mean, found.n, 400, of_seeds, 0.0, 0.0))


def cell(
    method: str,
    task: str,
    *best: float,
    first: Sequence[float] = (),
    last: Sequence[float] = (),
    metric: str = "accuracy",
    **changes: Any,
) -> Cell:
    """Return a cell of these scores, a seed each, and of 0 at evaluations that are not given."""
    zeros = (0.0,) * len(best)
    seeds = {}
    for seed, of in enumerate(zip(first or zeros, best, last or zeros, strict=True), 1):
        start, top, end = (Evaluation(64, 2.0, {metric: score}) for score in of)
        fitted = CrossFitted({metric: of[1]}, {metric: 0.0})
        seeds[str(seed)] = RunScores(start, top, end, fitted, learned=True)
    found = Cell(task, method, "best", {metric: 0.5}, {}, Counts(1, 1, 2), seeds)
    return replace(found, **changes)


def values(cell: Cell) -> dict[str, Values]:
    """Return values of 400 rows, of shape (seeds, rows), whose means are the cell's scores."""
    rows = 0.1 * np.sin(np.arange(400.0))
    return {
        metric: np.array(list(cell.scores(metric, cell.judged).values()))[:, None]
        + (rows - rows.mean())
        for metric in cell.metrics
    }


def step(recipe: Recipe, ratio: Ratio) -> costs.StepCost:
    """Return what a step costs."""
    seconds, epoch = costs.StepSeconds(0.2, 0.19, 0.002, 0.404), costs.MeanAndStd(12.85, 1.11)
    return costs.StepCost(recipe, 12, seconds, epoch, 39.9, 1068.3, ratio)


def use(peak: float, mean: float, *ratios: Ratio) -> costs.MemoryUse:
    """Return memory of training without intervals, and its ratios to the reference's."""
    both = ratios or (Ratio(1.0, 1.0, 1.0), Ratio(1.0, 1.0, 1.0))
    found = (costs.Amount(of, None, None, at) for of, at in zip((peak, mean), both, strict=True))
    return costs.MemoryUse(*found)


def memory(recipe: Recipe, peak: float, mean: float, libraries: int = 0) -> costs.MemoryCost:
    """Return the memory of training, its parts unknown but for the libraries."""
    both = use(peak, mean), use(peak - libraries, mean - libraries)
    return costs.MemoryCost(recipe, 4, *both, costs.MemoryParts(libraries, 0, 0, 0, 0, 0), 0, 0)


def latency(
    recipe: Recipe, one: Ratio, whole: Ratio, seconds: float = 0.0278
) -> costs.InferenceCost:
    """Return latencies by their ratios, and the median seconds of each."""
    times = Percentiles(seconds, 0.0231, 0.0497)
    return costs.InferenceCost(recipe, Latency(12, times, one), Latency(12, times, whole))


def machine(**changes: Any) -> costs.Machine:
    """Return a machine without a GPU that nobody else uses."""
    return replace(costs.Machine("a CPU", 2, None, 8 * 10**9, "Linux", "2.13.0", 0.0), **changes)


def task_profile(task: str = "film", **parts: Any) -> costs.TaskProfile:
    """Return the costs on a task that hold `parts`, equal copies, and nothing else."""
    nothing: dict[str, Any] = dict.fromkeys(("training", "memory", "inference", "energy"), ())
    nothing |= {"batches": dict.fromkeys(METHODS, costs.Batch(32, 1))}
    nothing |= {"second_copy": latency(Recipe(), Ratio(1.0, 0.99, 1.01), Ratio(1.0, 0.99, 1.01))}
    return costs.TaskProfile(task, **(nothing | parts))


def profile(*tasks: costs.TaskProfile, **about: Any) -> Profile:
    """Return a profile of `tasks`, on a machine that measures no energy unless `about` says so."""
    nothing = {"machine": machine(), "energy": costs.EnergySource(None, "no meter")}
    return Profile(tasks=tasks, **(nothing | about))
