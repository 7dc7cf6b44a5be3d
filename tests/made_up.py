"""A made-up study's results, small enough to know every number of, and what a page says of it."""

import statistics
from typing import Any

from peft_study.findings.results import Results

SCORES = {  # by method and task, a run each
    "lora": {"film_review": [0.75, 0.77, 0.765], "rating": [0.83, 0.82, 0.84]},
    "adapter_h": {"film_review": [0.74, 0.70, 0.745]},
    "full_ft": {"film_review": [0.75, 0.71, 0.7475], "rating": [0.86, 0.87, 0.865]},
}
METRICS = {"film_review": "accuracy", "rating": "pearson"}
COUNTS = {"lora": 73_728, "adapter_h": 152_256, "full_ft": 22_713_216}


def results() -> Results:
    """Return a study of three methods and two tasks, of which AdapterH lacks one."""
    cells = {
        (method, task): {
            "trainable": {"adapter": COUNTS[method], "head": 770, "total": COUNTS[method] + 770}
        }
        for method, tasks in SCORES.items()
        for task in tasks
    }
    return Results(
        study=_study(),
        summary={task: {"baseline": {METRICS[task]: 0.4825}} for task in METRICS},
        statistics=_statistics(),
        profile=_profile(),
        iso_accuracy=_iso_accuracy(),
        stability=[],
        curves=[],
        sweep=[],
        sweep_curves=[],
        sweep_runs={},
        cells=cells,
        parity=_parity(),
    )


def sweep() -> Results:
    """Return a study of a sweep alone, without a profile."""
    rows = [
        {"task": "film_review", "weights": weights, "rank": rank, "metric": metric, "n": 2}
        | {"median": 0.7 + rank / 100, "std": 0.0125, "trainable_adapter": 1000 * rank}
        for weights in ("query", "query+value")
        for rank in (1, 8)
        for metric in ("accuracy", "f1")
        if (weights, rank) != ("query", 8)
    ]
    study = _study() | {"methods": [], "adapters": {}}
    study["sweep"] = {"task": "film_review", "ranks": [1, 8], "weights": ["query", "query+value"]}
    nothing: dict[str, Any] = {"gaps": [], "cells": [], "differences": [], "averages": []}
    return Results(study, {}, nothing, {}, {}, [], [], rows, [], {}, {}, {})


CLAIMS: list[dict[str, Any]] = [
    {
        "id": "less-memory",
        "title": "Less memory",
        "source": "Hu et al. 2021, section 4.2",
        "statement": "LoRA needs a third of full fine-tuning's memory.",
        "quantity": "memory",
        "verdict": "not measured",
        "finding": "Memory of a GPU was not measured.",
        "settles": "A profile on a GPU.",
        "differs": None,
        "files": [],
    },
    {
        "id": "on-par",
        "title": "On par",
        "source": "Hu et al. 2021, table 2",
        "statement": "LoRA matches full fine-tuning.",
        "quantity": "score",
        "verdict": "supported",
        "finding": "On film_review the difference is +2.6 points.",
        "settles": None,
        "differs": "A small encoder instead of RoBERTa.",
        "files": ["metrics/statistics.json"],
    },
    {
        "id": "faster",
        "title": "Faster",
        "source": "Hu et al. 2021, section 4.2",
        "statement": "LoRA trains faster.",
        "quantity": "time",
        "verdict": "contradicted",
        "finding": "A step takes 1.41 times as long.",
        "settles": None,
        "differs": None,
        "files": ["metrics/profile.json"],
    },
]
PUBLISHED: list[dict[str, Any]] = [
    {
        "source": "hu2021",
        "table": "2",
        "citation": "Hu et al. 2021. LoRA: Low-Rank Adaptation of Large Language Models.",
        "model": "roberta-base",
        "method": "lora",
        "weights": "query+value",
        "rank": 8,
        "task": "film_review",
        "metric": "accuracy",
        "is_fraction": True,
        "published": 0.951,
        "published_std": 0.002,
        "ours": 0.765,
        "ours_std": 0.0104,
        "n": 3,
        "difference": -0.186,
        "note": None,
    }
]
FIGURES: list[dict[str, Any]] = [
    {
        "name": name,
        "title": title,
        "caption": f"{title}, made up.",
        "alt": f"{title} of two methods.",
        "unit": "points",
        "data": f"plots/data/{name}.json",
        "svg": f"plots/{name}.svg",
        "sources": ["metrics/statistics.json"],
    }
    for name, title in (("scores", "Scores"), ("curves", "Learning curves"))
]
_ROWS = [
    {"method": method, "epoch": epoch, "score": score + epoch}
    for method, score in (("LoRA (ours)", 74.0), ("Full fine-tuning", 73.0))
    for epoch in (1, 2, 3)
]
SPECS: dict[str, dict[str, Any]] = {
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
RAN: dict[str, Any] = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "machine": {"cpu": "AMD EPYC", "cores": 2, "gpu": None, "memory": 25_276_510_208},
    "packages": {"torch": "2.13.0", "peft": "0.20.0"},
    "seconds_of_training": 3725.4,
    "data": {"film_review": {"train": {"rows": 512, "sha256_of_ids": "805617e2" * 8}}},
}


def _study() -> dict[str, Any]:
    return {
        "study": "made_up",
        "model": {"name": "minilm", "revision": None, "max_length": 64},
        "data": {"source": "opinions", "folder": None, "split_seed": 0},
        "seeds": [1, 2, 3],
        "methods": list(SCORES),
        "main_metrics": METRICS,
        "report": "best",
        "mnli_init": {"mode": "per_method", "task": "product", "tasks": ["rating"]},
        "adapters": {
            "lora": {"r": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["query", "value"]},
            "adapter_h": {"bottleneck": 16, "activation": "gelu"},
        },
        "sweep": {"task": "film_review", "ranks": [], "weights": []},
        "equivalence_margin": 0.02,
        "published": [],
        "params": {"study": "made_up", "train": {"epochs": 2, "device": "cpu"}, "seeds": [1, 2, 3]},
        "packages": {"torch": "2.13.0"},
    }


def _statistics() -> dict[str, Any]:
    cells = [
        {"task": task, "method": method, "metric": METRICS[task], "evaluation": evaluation}
        | {"n": 3, "median": statistics.median(found), "std": statistics.stdev(found)}
        | {"mean": statistics.fmean(found), "cv": 0.0137, "min": min(found), "max": max(found)}
        | {"low": min(found), "high": max(found)}
        for evaluation in ("best", "last")
        for method, tasks in SCORES.items()
        for task, found in tasks.items()
    ]
    shared = {"evaluation": "best", "reference": "full_ft", "n": 3, "margin": 0.02}
    differences = [
        {"task": "film_review", "method": "lora", "metric": "accuracy", "mean": 0.0258}
        | {"low": -0.0297, "high": 0.0813, "p": 0.183, "p_equivalence": 0.652}
        | {"equivalent": False, "detectable": 0.0555}
        | shared,
        {"task": "rating", "method": "lora", "metric": "pearson", "mean": -0.035}
        | {"low": -0.0566, "high": -0.0134, "p": 0.0202, "p_equivalence": 0.95}
        | {"equivalent": False, "detectable": 0.0216}
        | shared,
        {"task": "film_review", "method": "adapter_h", "metric": "accuracy", "mean": -0.0075}
        | {"low": -0.0124, "high": 0.0019, "p": 0.0955, "p_equivalence": 0.0242}
        | {"equivalent": True, "detectable": 0.0091}
        | shared,
    ]
    averages = [
        {"method": "lora", "evaluation": "best", "tasks": 2, "mean_of_medians": 0.7975, "gaps": []},
        {"method": "full_ft", "evaluation": "best", "tasks": 2}
        | {"mean_of_medians": 0.80625, "gaps": []},
        {"method": "adapter_h", "evaluation": "best", "tasks": 1}
        | {"mean_of_medians": None, "gaps": ["rating"]},
    ]
    gaps = [{"method": "adapter_h", "task": "rating"}]
    return {"gaps": gaps, "cells": cells, "differences": differences, "averages": averages}


def _profile() -> dict[str, Any]:
    step = {"forward": 0.2, "backward": 0.19, "optimiser": 0.002, "step": 0.404}
    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    ratios = {"lora": {"median": 0.664, "low": 0.617, "high": 0.706}, "full_ft": one}
    parts = {"libraries": 537_000_000, "weights": 91_000_000, "gradients": 298_000}
    parts |= {"optimiser_state": 596_000, "activations": 80_500_000, "allocator": 86_600_000}
    sizes = {"lora": (816_500_000, 302_436), "full_ft": (1_048_800_000, 90_868_018)}
    latency = {"n": 12, "seconds": {"median": 0.0278, "p5": 0.0231, "p95": 0.0497}}
    merged = {"median": 0.984, "low": 0.792, "high": 1.421}
    few = {"median": 1.17, "low": None, "high": None}
    return {
        "task": "film_review",
        "batch_size": 16,
        "machine": RAN["machine"] | {"other_cpu_share": 0.232},
        "training": {
            name: {"seconds": step, "seconds_per_epoch": {"mean": 12.85, "std": 1.11}}
            | {"examples_per_second": 39.9, "tokens_per_second": 1068.3, "ratio": ratio}
            for name, ratio in ratios.items()
        },
        "memory": {
            name: {"peak": peak, "mean": 0.9 * peak, "explained": 796_000_000, "parts": parts}
            | {"stored": stored}
            for name, (peak, stored) in sizes.items()
        },
        "inference": {
            name: {
                "batch_1": latency | {"ratio": ratio},
                "batch_64": latency | {"ratio": ratio},
                "validation_set": latency | {"ratio": few},
            }
            for name, ratio in {"base model": one, "lora merged": merged}.items()
        },
        "energy": {"cells": None, "source": None, "reason": "RAPL cannot be read"},
    }


def _iso_accuracy() -> dict[str, Any]:
    runs = [
        {"task": "film_review", "method": "lora", "seed": seed, "target": 0.7425}
        | {"reached": seed > 1, "step": 64 if seed > 1 else None, "joules": None}
        | {"epoch": 2.0 if seed > 1 else None, "seconds": 24.4 if seed > 1 else None}
        for seed in (1, 2, 3)
    ]
    return {"margin": 0.005, "runs": runs, "energy": {}, "seconds_per_epoch": []}


def _parity() -> dict[str, Any]:
    counts = {
        "lora r=16 query+value": {"adapter": 589_824, "head": 1538, "total": 591_362},
        "lora r=2 query+value": {"adapter": 73_728, "head": 1538, "total": 75_266},
    }
    differences = {"peft_lora query+value": {"forward": 0.0}, "merge": {"merged_forward": 6.33e-08}}
    return {
        "counts": {"bert-base": counts},
        "differences": differences,
        "model": "minilm",
        "tolerance": 1e-05,
    }
