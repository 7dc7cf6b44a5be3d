"""A made-up study's results, small enough to know every number of, and what a page says of it."""

import statistics
from dataclasses import replace
from typing import Any

import builders
from peft_study.data.tasks import TASKS
from peft_study.findings.results import Claim, FigureInfo, PublishedRow, Results
from peft_study.records import costs, scores
from peft_study.records.certificates import Certificate, Certificates, Merging
from peft_study.records.costs import Ratio, Recipe
from peft_study.records.study import Evaluated, InitInfo, MethodInfo, StudyInfo, SweepInfo

SCORES = {  # by method and task, a run each
    "lora": {"film_review": [0.75, 0.77, 0.765], "rating": [0.83, 0.82, 0.84]},
    "adapter_h": {"film_review": [0.74, 0.70, 0.745]},
    "full_ft": {"film_review": [0.75, 0.71, 0.7475], "rating": [0.86, 0.87, 0.865]},
}
METRICS = {"film_review": "accuracy", "rating": "pearson"}
COUNTS = {"lora": 73_728, "adapter_h": 152_256, "full_ft": 22_713_216}
LORA, FULL = Recipe("lora", 8, ("query", "value")), Recipe("full_ft")
WEIGHTS = (("query",), ("query", "value"))


def results(**changes: Any) -> Results:
    """Return a study of three methods and two tasks, of which AdapterH lacks one."""
    cells = {(name, task): _cell(name, task) for name in SCORES for task in SCORES[name]}
    found: dict[str, Any] = {"study": study(), "statistics": _statistics(), "profile": profile()}
    found |= {"iso_accuracy": _iso_accuracy(), "cells": cells, "parity": parity()}
    found |= {"certificates": certificates()}
    return Results(**(found | changes))


def described(**changes: Any) -> Results:
    """Return those results with other parts of their statistics."""
    return results(statistics=replace(_statistics(), **changes))


def study(**changes: Any) -> StudyInfo:
    """Return what is said of that study."""
    init = InitInfo("per_method", "product", ("rating",))
    packages = {"torch": "2.13.0", "peft": "0.20.0"}
    found = builders.study(tuple(SCORES), METRICS, mnli_init=init, packages=packages)
    return replace(found, **changes)


def whole(about: StudyInfo) -> Results:
    """Return results of all that a study trains and measures, on a GPU: the same score everywhere.

    The counts of parameters are those of its methods.
    """
    pairs = [(method, task) for method in about.methods for task in about.tasks]
    keys = [(task.name, method.name, metric) for method, task in pairs for metric in [task.metric]]
    scored = (5, 0.8, 0.01, 0.8, 0.0125, 0.7, 0.9, 0.75, 0.85)  # n, median and what follows
    cells = [
        scores.CellStatistics(task, method, metric, at, *scored, chance=None)
        for task, method, _ in keys
        for metric in _metrics(task)
        for at in dict.fromkeys((about.report, about.judged))
    ]
    sets = [(weights, rank) for weights in about.sweep.weights for rank in about.sweep.ranks]
    swept: dict[str, Any] = {"n": 1, "median": 0.8, "std": None, "judged": 0.8}
    swept |= {"cv_first": None, "cv_last": None}
    swept |= {f"trainable_{part}": 1000 for part in ("adapter", "head", "total")}
    drawn: dict[str, Any] = {"n": 5, "mean": 0.8, "low": 0.79, "high": 0.81}
    drawn |= {"train_loss": 0.6, "validation_loss": 0.7}
    epochs = ((64, 1.0), (320, 5.0))
    of_sweep = about.sweep.task, "lora", about.main_metrics.get(about.sweep.task, "")
    return Results(
        study=about,
        statistics=builders.statistics(cells=tuple(cells)),
        cells={
            (m.name, t.name): builders.cell(
                m.name, t.name, trainable=_counts(m, about), seeds={"1": _run(t.name)}
            )
            for m, t in pairs
        },
        profile=_on_a_gpu(about),
        iso_accuracy=costs.IsoAccuracy(
            0.005,
            costs.EnergySource("NVML", None),
            tuple(
                scores.EqualScoreRun(task, method, 1, 0.8, True, 64, 2.0, 9.0, 2e3)
                for task, method, _ in keys
            ),
            (),
        ),
        stability=tuple(
            scores.StabilityPoint(task, method, *at, 5, 0.8, 0.01, 0.0125)
            for task, method, _ in keys
            for at in epochs
        ),
        curves=tuple(scores.CurvePoint(*of, *at, **drawn) for of in keys for at in epochs),
        sweep=tuple(
            scores.SweepRow(about.sweep.task, *of, metric, **swept)
            for of in sets
            for metric in _metrics(about.sweep.task)
        ),
        sweep_curves=tuple(
            scores.CurvePoint(*of_sweep, *at, **drawn, weights=weights, rank=rank)
            for weights, rank in sets
            for at in epochs
        ),
    )


def _metrics(task: str) -> list[str]:
    """Return what is scored of a task of the table, and of each of its parts."""
    parts = ("", *(f"_{part}" for part in TASKS[task].parts))
    return [f"{metric}{part}" for metric in TASKS[task].metrics for part in parts]


def _run(task: str) -> scores.RunScores:
    found = dict.fromkeys(_metrics(task), 0.8)
    at = scores.Evaluation(64, 1.0, found)
    return scores.RunScores(at, at, at, scores.CrossFitted(found, dict.fromkeys(found, 0.0)), True)


def _on_a_gpu(about: StudyInfo) -> costs.Profile:
    recipes = [Recipe(m.name, m.rank, m.weights, m.bottleneck) for m in about.methods]
    merged = [replace(recipe, merged=True) for recipe in recipes if recipe.method == "lora"]
    one, energy = Ratio(1.1, 1.0, 1.2), [costs.EnergyCost(r, 1.0, 2.0, 50.0) for r in recipes]
    parts: dict[str, Any] = {
        "training": tuple(builders.step(recipe, one) for recipe in recipes),
        "memory": tuple(builders.memory(recipe, 3 * 10**9, 2e9) for recipe in recipes),
        "inference": tuple(
            builders.latency(recipe, one, one) for recipe in [Recipe(), *recipes, *merged]
        ),
        "energy": tuple(energy),
        "batches": {method.name: costs.Batch(32, 1) for method in about.methods},
    }
    tasks = [builders.task_profile(task, **parts) for task in about.main_metrics]
    source = costs.EnergySource("NVML", None)
    return builders.profile(*tasks, machine=builders.machine(gpu="a GPU"), energy=source)


def _counts(method: MethodInfo, about: StudyInfo) -> scores.Counts:
    """Return the parameters of a method, of full fine-tuning those of the encoder, and a head's."""
    sizes = {"roberta-base": (12, 768, 124_055_040), "roberta-large": (24, 1024, 354_310_144)}
    layers, width, encoder = sizes.get(about.model.short, (24, 1536, 884_594_688))
    size = method.bottleneck or 0
    lora = layers * len(method.weights) * 2 * width * (method.rank or 0)
    adapter = 2 * layers * (2 * width * size + size + width)
    # Of recipes, as if each were of the size of its published row: Table 2 of Hu et al. 2021.
    recipes = {"adapter_d": 894_528, "adapter_d_small": 298_176, "adapter_p": 811_392}
    recipes["adapter_p"] *= 4 if "=16," in str(method.settings.get("config")) else 1
    known = {"lora": lora, "adapter": adapter, "full": encoder, "selective": 102_144}
    trained = recipes.get(method.name) or known.get(method.family, lora or 50_000)
    return scores.Counts(trained, width**2, trained + width**2)


def sweep() -> Results:
    """Return a study of a sweep alone, without a profile."""
    rest: dict[str, Any] = {"n": 2, "std": 0.0125, "judged": 0.7, "cv_first": None, "cv_last": None}
    rest |= {f"trainable_{part}": 1000 for part in ("adapter", "head", "total")}
    rows = [
        scores.SweepRow("film_review", weights, rank, metric, median=0.7 + rank / 100, **rest)
        for weights in WEIGHTS
        for rank in (1, 8)
        for metric in ("accuracy", "f1")
        if (weights, rank) != (("query",), 8)
    ]
    about = study(methods=(), sweep=SweepInfo("film_review", (1, 8), WEIGHTS))
    return builders.results(about, sweep=tuple(rows))


_FASTER = Claim(
    **{"id": "faster", "title": "Faster", "source": "Hu et al. 2021, section 4.2"},
    **{"statement": "LoRA trains faster.", "quantity": "time", "verdict": "contradicted"},
    finding="A step takes 1.41 times as long.",
    settles=None,
    differs=None,
    files=("metrics/profile.json",),
)
_MEMORY = {"id": "less-memory", "title": "Less memory", "quantity": "memory"}
_MEMORY |= {"statement": "LoRA needs a third of full fine-tuning's memory."}
_MEMORY |= {"verdict": "not measured", "finding": "Memory of a GPU was not measured."}
_MEMORY |= {"settles": "A profile on a GPU."}
_SAME = {"id": "on-par", "title": "On par", "source": "Hu et al. 2021, table 2"}
_SAME |= {"quantity": "score", "statement": "LoRA matches full fine-tuning."}
_SAME |= {"verdict": "supported", "finding": "On film_review the difference is +2.6 points."}
_SAME |= {"differs": "A small encoder instead of RoBERTa."}
CLAIMS = [
    replace(_FASTER, **_MEMORY, files=()),
    replace(_FASTER, **_SAME, files=("metrics/statistics.json",)),
    _FASTER,
]
_ROW: dict[str, Any] = {"source": "hu2021", "table": "2", "model": "roberta-base", "method": "lora"}
_ROW |= {"citation": "Hu et al. 2021. LoRA: Low-Rank Adaptation of Large Language Models."}
_ROW |= {"note": None}
_ROW |= {"weights": WEIGHTS[1], "rank": 8, "task": "film_review", "metric": "accuracy", "n": 3}
_ROW |= {"is_fraction": True, "published": 0.951, "published_std": 0.002, "published_seeds": 5}
PUBLISHED = [PublishedRow(**_ROW, ours=0.765, ours_std=0.0104, difference=-0.186, like=True)]
FIGURES = [
    FigureInfo(
        **{"name": name, "title": title, "caption": f"{title}, made up.", "unit": "points"},
        **{"alt": f"{title} of two methods.", "data": f"plots/data/{name}.json"},
        svg=f"plots/{name}.svg",
        sources=("metrics/statistics.json",),
    )
    for name, title in (("scores", "Scores"), ("curves", "Learning curves"))
]
_ROWS = [
    {"method": method, "epoch": epoch, "score": score + epoch}
    for method, score in (("LoRA (ours)", 74.0), ("Full fine-tuning", 73.0))
    for epoch in (1, 2, 3)
]
SPECS: dict[str, dict[str, object]] = {
    name: {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": _ROWS},
        "width": width,
        "mark": mark,
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative"},
            "y": {"field": "score", "type": "quantitative", "scale": {"zero": False}},
            "color": {"field": "method", "type": "nominal"},
            "tooltip": [{"field": "score"}],
        },
        "transform": [{"calculate": "datum.score * 1", "as": "score"}],
    }
    for name, width, mark in (("scores", 640, "point"), ("curves", "container", "line"))
}


def _cell(method: str, task: str) -> scores.Cell:
    found, adapter = SCORES[method][task], COUNTS[method]
    about: dict[str, Any] = {"first": found, "last": found, "metric": METRICS[task]}
    about |= {"data": {"train": scores.Rows(512, "805617e2" * 8)}}
    about |= {"trainable": scores.Counts(adapter, 770, adapter + 770)}
    return builders.cell(method, task, *found, baseline={METRICS[task]: 0.4825}, **about)


def _statistics_of(
    method: str, task: str, evaluation: Evaluated, at: float
) -> scores.CellStatistics:
    found = [score + at for score in SCORES[method][task]]
    about: dict[str, Any] = {"task": task, "method": method, "metric": METRICS[task], "n": 3}
    about |= {"median": statistics.median(found), "mean": statistics.fmean(found), "cv": 0.0137}
    about |= {"low": min(found), "high": max(found), "min": min(found), "max": max(found)}
    std = statistics.stdev(found)
    return scores.CellStatistics(**about, evaluation=evaluation, std=std, chance=None)


def _statistics() -> scores.Statistics:
    evaluations: dict[Evaluated, float] = {"first": -0.1, "best": 0.0, "cross_fitted": -0.01}
    cells = [
        _statistics_of(method, task, evaluation, at)
        for evaluation, at in evaluations.items()
        for method, tasks in SCORES.items()
        for task in tasks
    ]
    values: list[dict[str, Any]] = [
        {"task": "film_review", "low": -0.0297, "high": 0.0813, "mean": 0.0258, "p": 0.183}
        | {"p_equivalence": 0.652, "detectable": 0.0555},
        {"task": "rating", "low": -0.0566, "high": -0.0134, "mean": -0.035, "p": 0.0202}
        | {"p_equivalence": 0.95, "detectable": 0.0216, "metric": "pearson"},
        {"task": "film_review", "low": -0.0124, "high": 0.0019, "mean": -0.0075, "p": 0.0955}
        | {"p_equivalence": 0.0242, "detectable": 0.0091, "equivalent": True}
        | {"method": "adapter_h"},
    ]
    return scores.Statistics(
        gaps=(scores.Gap("adapter_h", "rating", "seed 3: the loss is nan after step 12"),),
        cells=tuple(cells),
        differences=tuple(builders.difference(**found) for found in values),
        swept=(),
        unlearned=(),
        overall=(),
        over_tasks=(),
        averages=(
            scores.Average("lora", "best", 2, (), 0.7975),
            scores.Average("lora", "cross_fitted", 2, (), 0.7875),
            scores.Average("full_ft", "cross_fitted", 2, (), 0.79625),
            scores.Average("full_ft", "best", 2, (), 0.80625),
            scores.Average("adapter_h", "best", 1, ("rating",), None),
        ),
        baselines={task: {metric: 0.4825} for task, metric in METRICS.items()},
    )


def profile(**changes: Any) -> costs.Profile:
    """Return what LoRA and full fine-tuning cost."""
    one, few = Ratio(1.0, 1.0, 1.0), Ratio(1.17, None, None)
    parts = costs.MemoryParts(537_000_000, 91_000_000, 298_000, 596_000, 80_500_000, 86_600_000)
    ratios = {LORA: Ratio(0.664, 0.617, 0.706), FULL: one}
    sizes = {LORA: (816.5e6, 302_436, 0.7785, 0.5461), FULL: (1048.8e6, 90_868_018, 1.0, 1.0)}
    libraries = parts.libraries
    latencies = {Recipe(): one, replace(LORA, merged=True): Ratio(0.984, 0.792, 1.421)}
    task = builders.task_profile(
        "film_review",
        batches=dict.fromkeys(SCORES, costs.Batch(16, 1)),
        training=tuple(builders.step(recipe, ratio) for recipe, ratio in ratios.items()),
        memory=tuple(
            costs.MemoryCost(
                recipe,
                4,
                builders.use(peak, 0.9 * peak, *[_near(ratio)] * 2),
                builders.use(peak - libraries, 0.9 * peak - libraries, *[_near(beyond)] * 2),
                parts,
                796_000_000,
                stored,
            )
            for recipe, (peak, stored, ratio, beyond) in sizes.items()
        ),
        inference=tuple(builders.latency(r, at, few) for r, at in latencies.items()),
    )
    return builders.profile(
        replace(task, **changes),
        machine=costs.Machine("AMD EPYC", 2, None, 25_276_510_208, "Linux", "2.13.0", 0.232),
        energy=costs.EnergySource(None, "RAPL cannot be read"),
    )


def _near(ratio: float) -> Ratio:
    return Ratio(ratio, 0.98 * ratio, 1.02 * ratio)


def _iso_accuracy() -> costs.IsoAccuracy:
    runs = [
        scores.EqualScoreRun("film_review", "lora", seed, 0.7425, seed > 1, *found, joules=None)
        for seed, found in enumerate([(None, None, None), (64, 2.0, 24.4), (64, 2.0, 24.4)], 1)
    ]
    epochs = scores.EpochSeconds("film_review", "lora", 10, 372.54, None)
    return costs.IsoAccuracy(0.005, costs.EnergySource(None, None), tuple(runs), (epochs,))


def certificates() -> Certificates:
    """Return what was found of a LoRA that merges, and of an AdapterH."""
    about: dict[str, Any] = {"tensors": 24, "frozen": 103, "hooks": (), "power": 0.067}
    about |= {"own_forward": False, "packed": 1.8e-06, "files": 0.0, "library_files": 8.6e-07}
    parts: dict[str, dict[str, Any]] = {
        "lora": {"closed_form": 73_728, "start": 0.0, "library": "PEFT", "ranks": (96, 49)}
        | {"merging": Merging(7.1e-07, 0.01, 0.0), "unmerged": None},
        "adapter_h": {"closed_form": None, "start": 0.094, "library": "adapters", "ranks": None}
        | {"merging": None, "unmerged": "its update does not merge"},
    }
    found = (
        Certificate(name, scores.Counts(COUNTS[name], 770, COUNTS[name] + 770), **about, **part)
        for name, part in parts.items()
    )
    return Certificates("minilm", 1e-05, 3, tuple(found))


def parity() -> costs.Parity:
    """Return counts of two settings of LoRA, and what was compared."""
    settings = {f"lora r={rank} query+value": Recipe("lora", rank, WEIGHTS[1]) for rank in (16, 2)}
    counts = {
        name: scores.Counts(36_864 * (at.rank or 0), 1538, 0) for name, at in settings.items()
    }
    differences = (
        costs.ParityDifference("peft_lora", WEIGHTS[1], "", {"forward": 0.0}, 3, 16.0, 0.1),
        costs.ParityDifference(None, (), "merge", {"merged_forward": 6.33e-08}, 3, 16.0, 0.1),
    )
    checked = ("Dropout: 10.0% dropped in training.",)
    return costs.Parity("minilm", 1e-05, settings, {"bert-base": counts}, differences, checked)
