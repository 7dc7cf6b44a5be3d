"""A made-up study of twelve methods and eight tasks, as recipes declare them."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import norm

import builders
from peft_study.findings import statistics
from peft_study.findings.results import Results
from peft_study.records import costs, scores
from peft_study.records.costs import Ratio, Recipe
from peft_study.records.study import MethodInfo

LONG = "LoRA of rank {} on all the linear layers of the encoder, too"
TASKS = dict.fromkeys(("mnli", "qqp", "qnli", "sst2", "mrpc", "rte"), "accuracy")
TASKS |= {"cola": "matthews", "stsb": "pearson"}
LORA = builders.SETTINGS["lora"]
IA3 = {"config": {"peft_type": "IA3", "target_modules": ["key", "value"]}, "init_std": None}
# By name: share of right answers, trained parameters, seconds a step, MB at the peak.
METHODS: dict[str, tuple[float, int, float, int]] = {
    "lora": (0.81, 73_728, 0.31, 820),
    "adapter_h": (0.80, 152_256, 0.33, 835),
    "full_ft": (0.83, 22_713_216, 0.48, 1048),
    "dora": (0.815, 78_000, 0.55, 900),
    "lora_r1": (0.77, 9_216, 0.30, 815),
    "adalora": (0.80, 110_592, 0.42, 840),
    "lora_r64": (0.822, 589_824, 0.34, 850),
    "pfeiffer": (0.79, 80_000, 0.29, 800),
    "bitfit": (0.76, 51_000, 0.28, 780),
    "ia3": (0.74, 18_000, 0.30, 810),
    "oft": (0.79, 60_000, 0.60, 950),
    "prefix": (0.70, 245_000, 0.35, 830),
}


def recipe(name: str, label: str, family: str, kind: str, **about: Any) -> MethodInfo:
    """Return a method that a recipe declares."""
    found: dict[str, Any] = {"settings": {}, "citation": None} | about
    place = 5 + [*METHODS].index(name) if name in METHODS else 99
    return MethodInfo(name, label, family, name, place, False, kind=kind, **found)


RECIPES = (
    recipe("dora", "DoRA", "lora", "peft_tuner", citation="Liu et al. 2024 (DoRA), section 4"),
    recipe("lora_r1", LONG.format(1), "lora", "lora", settings=LORA | {"r": 1}),
    recipe("adalora", "AdaLoRA", "lora", "peft_tuner"),
    recipe("lora_r64", LONG.format(64), "lora", "lora", settings=LORA | {"r": 64}),
    recipe("pfeiffer", "Pfeiffer's adapter", "adapter", "adapters_library"),
    recipe("bitfit", "BitFit", "selective", "bitfit", settings={"weights": "biases"}),
    recipe("ia3", "IA3", "scaling", "peft_tuner", settings=IA3),
    recipe("oft", "OFT", "orthogonal", "peft_tuner"),
    recipe("prefix", "Prefix tuning", "prefix", "adapters_library"),
)


@cache
def results(tasks: int = 8, slow: tuple[str, ...] = ()) -> Results:
    """Return results of the twelve methods; those of `slow` have not learned the first task."""
    names = dict([*TASKS.items()][:tasks])
    study = builders.study(("lora", "adapter_h", "full_ft"), names, seeds=(1, 2, 3, 4, 5))
    study = replace(study, methods=(*study.methods, *RECIPES))
    rng, cells, values = np.random.default_rng(3), {}, {}
    points: list[scores.CurvePoint] = []
    for place, (task, metric) in enumerate(names.items()):
        rows = rng.normal(0, 1, 300)
        for method in study.methods:
            share, trained, *_ = METHODS[method.name]
            latent = 1.2 * norm.ppf(share) + rows + rng.normal(0, 0.1, (5, 1))
            right = (latent + 0.5 * rng.normal(0, 1, (5, 300)) > 0).astype(np.float64)
            if method.name in slow and not place:
                right = np.tile([0.0, 1.0], (5, 150))
            of = right.mean(axis=1).tolist()
            about: dict[str, Any] = {"metric": metric, "baseline": {metric: 0.5}}
            about["trainable"] = scores.Counts(trained, 770, trained + 770)
            cells[method.name, task] = builders.cell(
                method.name, task, *of, first=of, last=of, **about
            )
            values[method.name, task] = {metric: right}
            where, ends = (task, method.name, metric), (min(of), max(of))
            points += [
                scores.CurvePoint(*where, 4 * at, float(at), 5, sum(of) / 5, *ends, 0.6, 0.7)
                for at in (1, 2)
            ]
    found = statistics.summarise(study, cells, [], [], lambda of: values[of.method, of.task])
    return builders.results(
        study,
        statistics=found,
        cells=cells,
        profile=_profile(study.methods),
        curves=tuple(points),
    )


def _profile(methods: tuple[MethodInfo, ...]) -> costs.Profile:
    recipes = [Recipe(m.name, m.rank, m.weights, m.bottleneck) for m in methods]
    steps, memory = [], []
    for of in recipes:
        _, _, seconds, peak = METHODS[str(of.method)]
        step = builders.step(of, Ratio(seconds / 0.48, None, None))
        steps.append(replace(step, seconds=costs.StepSeconds(0.1, 0.1, 0.01, seconds)))
        memory.append(builders.memory(of, peak * 1e6, 7e8))
    batches = {method.name: costs.Batch(32, 1) for method in methods}
    parts: dict[str, Any] = {"training": tuple(steps), "memory": tuple(memory)}
    parts["inference"] = tuple(
        builders.latency(of, Ratio(1.1, 1.0, 1.2), Ratio(1.1, 1.0, 1.2)) for of in recipes
    )
    return builders.profile(builders.task_profile("mnli", batches=batches, **parts))
