"""The verdicts on published claims, from made-up results."""

import json
from dataclasses import replace
from typing import Any

import pytest

from peft_study.findings.claims import RULES, claims, load_claims
from peft_study.findings.results import Results

IDS = [
    *("lora_within_2_percent", "fewer_parameters_99_7", "ours_within_1_1_points_of_loralib"),
    *("no_overhead_when_merged", "adapters_add_latency", "memory_38_percent_lower"),
    *("memory_two_thirds_lower", "epochs_40_to_48_percent_faster", "energy_not_lower"),
    *("rank_1_within_1_point", "query_value_as_good_as_all_four"),
    *("value_output_better_than_query_key", "more_stable_than_adapters_in_first_epoch"),
    "mnli_init_helps_rte_most",
]
VERDICTS = {"supported", "contradicted", "inconclusive", "not measured"}
STUDY: dict[str, Any] = {
    "study": "made-up",
    "model": {"name": "FacebookAI/roberta-base", "revision": None, "max_length": 64},
    "seeds": [1, 2, 3],
    "methods": ["lora", "loralib_lora", "adapter_h", "full_ft"],
    "main_metrics": {"sst2": "accuracy", "stsb": "pearson"},
    "report": "best",
    "mnli_init": {"mode": "per_method", "task": "mnli", "tasks": ["stsb"]},
    "adapters": {"lora": {"r": 8, "targets": ["query", "value"]}},
    "sweep": {"task": "sst2", "ranks": [], "weights": []},
    "published": [],
}


def make(**parts: Any) -> Results:
    """Return results with nothing but the study, and `parts`."""
    empty: dict[str, Any] = {
        **{"study": STUDY, "summary": {}, "statistics": {}, "profile": {}, "iso_accuracy": {}},
        **{"stability": [], "curves": [], "sweep": [], "sweep_curves": []},
        **{"sweep_runs": {}, "cells": {}},
        "parity": {},
    }
    return Results(**(empty | parts))


def judge(name: str, **parts: Any) -> dict[str, Any]:
    """Return the entry of one claim."""
    found = {entry["id"]: entry for entry in claims(make(**parts))}[name]
    assert found["verdict"] in VERDICTS
    open_question = found["verdict"] in ("inconclusive", "not measured")
    assert (found["settles"] is not None) == open_question
    return found


def differences(
    *intervals: tuple[float | None, float | None],
    reference: str = "full_ft",
    gaps: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Return statistics: LoRA minus `reference` on sst2 and stsb, by their intervals."""
    rows = []
    for (task, metric), (low, high) in zip(STUDY["main_metrics"].items(), intervals, strict=False):
        known = low is not None and high is not None
        mean = (low + high) / 2 if low is not None and high is not None else 0.0
        row = {"task": task, "metric": metric, "method": "lora", "reference": reference}
        row |= {"n": 3 if known else 1, "mean": mean, "low": low, "high": high}
        # What is not the reported evaluation, or not the main metric, must not count.
        decoy = {"low": -0.9, "high": -0.8, "mean": -0.85}
        rows += [row | {"evaluation": "best"}, row | decoy | {"evaluation": "last"}]
        rows.append(row | decoy | {"evaluation": "best", "metric": "f1"})
    return {"gaps": [{"method": m, "task": t} for m, t in gaps], "differences": rows}


def ratio(low: float | None, median: float, high: float | None) -> dict[str, Any]:
    return {"ratio": {"low": low, "median": median, "high": high}}


def memory(peak: float, mean: float, libraries: int = 500) -> dict[str, Any]:
    """Return a profile in which LoRA takes these shares of full fine-tuning's 1000 bytes."""
    cells = {
        method: {"peak": libraries + p, "mean": libraries + m, "parts": {"libraries": libraries}}
        for method, p, m in (("lora", 1000 * peak, 1000 * mean), ("full_ft", 1000, 1000))
    }
    return {"task": "sst2", "memory": cells}


def swept(scores: dict[str, list[float]]) -> dict[str, Any]:
    """Return `metrics/runs/sweep.json` of these scores by cell, one a seed."""
    return {
        name: {
            "task": "sst2",
            "seeds": {
                str(seed): {"best": {"accuracy": score}, "last": {"accuracy": 0.0}}
                for seed, score in enumerate(values, 1)
            },
        }
        for name, values in scores.items()
    }


def sweeping(ranks: list[int], weights: list[str]) -> dict[str, Any]:
    return STUDY | {"sweep": {"task": "sst2", "ranks": ranks, "weights": weights}}


def test_every_claim_has_a_rule_and_all_its_words() -> None:
    entries = load_claims()
    assert sorted(entry["id"] for entry in entries) == sorted(IDS) == sorted(RULES)
    for entry in entries:
        words = ("source", "statement", "quantity", "supports", "contradicts", "settles")
        assert all(isinstance(entry[key], str) and entry[key].strip() for key in words), entry
        assert set(entry["claimed_on"]) == {"models", "tasks", "hardware"}


def test_without_any_results_nothing_is_measured() -> None:
    found = claims(make())
    assert [entry["id"] for entry in found] == [entry["id"] for entry in load_claims()]
    assert {entry["verdict"] for entry in found} == {"not measured"}
    assert all(entry["finding"].endswith(".") and entry["settles"] for entry in found)
    json.dumps(found, allow_nan=False)


def test_a_study_of_a_sweep_alone_is_judged() -> None:
    study = sweeping([1, 8], ["query"]) | {"methods": []}
    found = {entry["id"]: entry["verdict"] for entry in claims(make(study=study))}
    assert set(found.values()) == {"not measured"}


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(-0.019, 0.03), (-0.01, 0.0)], "supported"),
        ([(-0.019, 0.03), (0.05, 0.09)], "supported"),  # better by far is no contradiction
        ([(-0.021, 0.03), (-0.01, 0.0)], "inconclusive"),
        ([(-0.09, -0.021), (-0.01, 0.0)], "contradicted"),
        ([(None, None), (-0.01, 0.0)], "inconclusive"),
        ([(None, None), (-0.09, -0.05)], "contradicted"),
    ],
)
def test_lora_is_within_two_points_where_every_interval_says_so(
    intervals: list[tuple[float | None, float | None]], verdict: str
) -> None:
    found = judge("lora_within_2_percent", statistics=differences(*intervals))
    assert found["verdict"] == verdict
    assert found["files"] == ["metrics/statistics.json"]


def test_the_reported_evaluation_is_judged() -> None:
    last = STUDY | {"report": "last"}
    close = differences((-0.01, 0.01), (-0.01, 0.01))
    assert judge("lora_within_2_percent", statistics=close)["verdict"] == "supported"
    found = judge("lora_within_2_percent", statistics=close, study=last)
    assert found["verdict"] == "contradicted"


def test_the_finding_has_the_figures_and_the_seeds_that_would_decide() -> None:
    found = judge("lora_within_2_percent", statistics=differences((-0.03, 0.01), (-0.01, 0.01)))
    assert "sst2 -1.00 points (95% interval -3.00 to +1.00, n = 3)" in found["finding"]
    # Half of the interval is 2 points, its distance to -2 is 1: four times the seeds.
    assert found["settles"].startswith("About 12 seeds")
    one = judge("lora_within_2_percent", statistics=differences((None, None), (None, None)))
    assert one["verdict"] == "inconclusive"
    assert "no interval, n = 1" in one["finding"]
    assert one["settles"].startswith("Two seeds or more")


def test_one_interval_outside_is_enough_for_the_seeds_that_would_decide() -> None:
    found = judge("lora_within_2_percent", statistics=differences((-0.065, 0.005), (-0.019, 0.0)))
    # sst2 lies 1 point outside, half of its interval is 3.5 points: 12.25 times the seeds.
    assert found["settles"].startswith("About 37 seeds")


def test_a_gap_is_named_and_leaves_the_claim_open() -> None:
    gap = (("lora", "stsb"), ("adapter_h", "sst2"))
    found = judge("lora_within_2_percent", statistics=differences((-0.01, 0.01), gaps=gap))
    assert found["verdict"] == "inconclusive"
    assert "stsb, LoRA (ours): no results" in found["finding"]
    assert "AdapterH" not in found["finding"]
    worse = differences((-0.09, -0.05), gaps=gap)
    assert judge("lora_within_2_percent", statistics=worse)["verdict"] == "contradicted"
    none = judge("lora_within_2_percent", statistics=differences(gaps=gap))
    assert none["verdict"] == "not measured"
    assert "stsb, LoRA (ours): no results" in none["finding"]


def test_a_study_without_full_fine_tuning_says_so() -> None:
    study = STUDY | {"methods": ["lora"]}
    found = judge("lora_within_2_percent", study=study)
    assert found["finding"] == "The study has no full fine-tuning."


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(-0.010, 0.010), (0.0, 0.0)], "supported"),
        ([(-0.010, 0.012), (0.0, 0.0)], "inconclusive"),
        ([(-0.012, 0.010), (0.0, 0.0)], "inconclusive"),
        ([(0.012, 0.03), (0.0, 0.0)], "contradicted"),
        ([(-0.03, -0.012), (0.0, 0.0)], "contradicted"),
        ([], "not measured"),
    ],
)
def test_ours_is_within_points_of_loralib_either_way(
    intervals: list[tuple[float | None, float | None]], verdict: str
) -> None:
    statistics = differences(*intervals, reference="loralib_lora")
    found = judge("ours_within_1_1_points_of_loralib", statistics=statistics)
    assert found["verdict"] == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"), [(3000, "supported"), (3499, "supported"), (3501, "contradicted")]
)
def test_parameters_are_counted(ours: int, verdict: str) -> None:
    cells = {
        "baseline": {"accuracy": 0.5},
        "lora": {"trainable": {"adapter": ours, "head": 10**6, "total": ours + 10**6}},
        "full_ft": {"trainable": {"adapter": 999_000, "head": 1000, "total": 10**6}},
    }
    found = judge("fewer_parameters_99_7", summary={"sst2": cells})
    assert found["verdict"] == verdict
    assert found["finding"].startswith(f"{ours:,} instead of 1,000,000, ")
    assert ("99.649%" in found["finding"]) == (ours == 3501)  # never rounded up
    assert found["differs"] is None
    alone = judge("fewer_parameters_99_7", summary={"sst2": {"lora": cells["lora"]}})
    assert alone["verdict"] == "not measured"


def test_the_sources_model_is_counted_too() -> None:
    count = {"head": 1, "adapter": 1, "total": 1}
    cells = {name: {"trainable": count} for name in ("lora", "full_ft")}
    there = {
        "lora r=8 query+value": count | {"adapter": 294_912},
        "full_ft": count | {"total": 124_647_170},
    }
    parity = {"counts": {"roberta-base": there}}
    found = judge("fewer_parameters_99_7", summary={"sst2": cells}, parity=parity)
    assert "99.763% fewer" in found["finding"]
    assert found["verdict"] == "contradicted"  # of the study's own model


@pytest.mark.parametrize(
    ("one", "many", "verdict"),
    [
        (ratio(0.95, 1.01, 1.05), ratio(0.99, 1.0, 1.01), "supported"),
        (ratio(1.01, 1.02, 1.05), ratio(0.99, 1.0, 1.01), "contradicted"),
        (ratio(0.95, 1.01, 1.05), ratio(1.001, 1.1, 1.2), "contradicted"),
        (ratio(0.95, 1.01, 1.05), ratio(None, 1.0, None), "inconclusive"),
        (ratio(0.90, 0.95, 0.99), ratio(0.99, 1.0, 1.01), "inconclusive"),  # cannot be
        (ratio(0.80, 1.01, 1.25), ratio(0.99, 1.0, 1.01), "inconclusive"),  # adapters have as much
    ],
)
def test_merged_lora_has_no_overhead_where_intervals_hold_1(
    one: dict[str, Any], many: dict[str, Any], verdict: str
) -> None:
    inference = {"lora merged": {"batch_1": one, "batch_64": many}}
    found = judge("no_overhead_when_merged", profile={"task": "sst2", "inference": inference})
    assert found["verdict"] == verdict
    if verdict == "supported":
        assert "0.100 wide" in found["finding"]
        assert "up to 5% is not excluded" in found["finding"]


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (ratio(1.01, 1.2, 1.3), "supported"),
        (ratio(0.99, 1.2, 1.3), "inconclusive"),
        (ratio(None, 1.2, None), "inconclusive"),
        (ratio(0.8, 0.9, 0.99), "contradicted"),
    ],
)
def test_adapters_add_latency_one_by_one(one: dict[str, Any], verdict: str) -> None:
    inference = {"adapter_h": {"batch_1": one, "batch_64": ratio(0.5, 0.6, 0.7)}}
    profile = {"task": "sst2", "inference": inference, "machine": {"cpu": "x", "cores": 2}}
    found = judge("adapters_add_latency", profile=profile)
    assert found["verdict"] == verdict
    assert "Quadro" in found["differs"]
    assert judge("adapters_add_latency", profile={"inference": {}})["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("peak", "mean", "thirty_eight", "two_thirds"),
    [
        (0.30, 0.30, "supported", "supported"),
        (0.50, 0.60, "supported", "inconclusive"),
        (0.50, 0.65, "inconclusive", "inconclusive"),
        (0.70, 0.65, "contradicted", "inconclusive"),
        (1.10, 1.05, "contradicted", "contradicted"),
    ],
)
@pytest.mark.parametrize("libraries", [0, 500, 10**6])
def test_memory_is_compared_without_the_libraries(
    peak: float, mean: float, thirty_eight: str, two_thirds: str, libraries: int
) -> None:
    profile = memory(peak, mean, libraries)
    assert judge("memory_38_percent_lower", profile=profile)["verdict"] == thirty_eight
    found = judge("memory_two_thirds_lower", profile=profile)
    assert found["verdict"] == two_thirds
    assert ("without the libraries'" in found["finding"]) == (libraries > 0)
    assert "single measurements" in found["finding"]


def test_memory_without_full_fine_tuning_is_not_measured() -> None:
    profile = memory(0.5, 0.5)
    del profile["memory"]["full_ft"]
    found = judge("memory_38_percent_lower", profile=profile)
    assert found["verdict"] == "not measured"
    assert "full fine-tuning" in found["finding"]


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (ratio(0.50, 0.55, 0.59), "supported"),
        (ratio(0.20, 0.25, 0.30), "supported"),
        (ratio(0.50, 0.55, 0.66), "inconclusive"),
        (ratio(None, 0.55, None), "inconclusive"),
        (ratio(0.66, 0.68, 0.70), "contradicted"),
    ],
)
def test_epochs_are_faster_by_the_interval(step: dict[str, Any], verdict: str) -> None:
    training = {"lora": step, "full_ft": ratio(1.0, 1.0, 1.0)}
    busy = {"cpu": "x", "cores": 2, "other_cpu_share": 0.2}
    profile = {"task": "sst2", "training": training, "machine": busy}
    found = judge("epochs_40_to_48_percent_faster", profile=profile)
    assert found["verdict"] == verdict
    assert "other programs used 20% of the processors" in found["finding"]
    if verdict == "contradicted":
        assert "30% to 34% less" in found["finding"]


def test_a_profile_without_full_fine_tuning_is_relative_to_lora_and_says_nothing() -> None:
    training = {"lora": ratio(1.0, 1.0, 1.0)}
    found = judge("epochs_40_to_48_percent_faster", profile={"training": training})
    assert found["verdict"] == "not measured"


def joules(ours: list[float | None], theirs: list[float | None]) -> dict[str, Any]:
    """Return `metrics/iso_accuracy.json` with these joules by seed."""
    runs = [
        {"task": "sst2", "method": method, "seed": seed, "joules": value}
        | {"reached": value is not None}
        for method, values in (("lora", ours), ("full_ft", theirs))
        for seed, value in enumerate(values, 1)
    ]
    return {"energy": {"source": "RAPL", "reason": None}, "runs": runs}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([200.0, 210.0, 190.0], "supported"),
        ([50.0, 60.0, 40.0], "contradicted"),
        ([90.0, 100.0, 125.0], "inconclusive"),
        ([200.0, None, 190.0], "inconclusive"),
        ([200.0], "inconclusive"),
    ],
)
def test_energy_is_compared_to_an_equal_score(ours: list[float | None], verdict: str) -> None:
    iso = joules(ours, [100.0, 101.0, 99.0])
    found = judge("energy_not_lower", iso_accuracy=iso)
    assert found["verdict"] == verdict
    assert "RAPL" in found["finding"]
    if None in ours:
        assert "LoRA (ours), seed 2: score never reached" in found["finding"]


def test_energy_that_is_not_measured_decides_nothing() -> None:
    iso = joules([200.0, 210.0, 190.0], [100.0, 101.0, 99.0])
    estimate = {"source": "estimate", "reason": "no meter"}
    found = judge("energy_not_lower", iso_accuracy=iso | {"energy": estimate})
    assert found["verdict"] == "not measured"
    assert "estimate" in found["finding"]
    reason = {"source": None, "reason": "RAPL cannot be read"}
    found = judge("energy_not_lower", iso_accuracy={"energy": reason, "runs": []})
    assert found["verdict"] == "not measured"
    assert "RAPL cannot be read" in found["finding"]
    assert judge("energy_not_lower", iso_accuracy=joules([], []))["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("at_rank_1", "verdict"),
    [
        ([0.899, 0.902, 0.900], "supported"),
        ([0.880, 0.884, 0.882], "contradicted"),
        ([0.880, 0.910, 0.895], "inconclusive"),
        ([0.900], "inconclusive"),
    ],
)
def test_rank_1_is_compared_with_higher_ranks(at_rank_1: list[float], verdict: str) -> None:
    high = [0.900, 0.901, 0.901]
    runs = swept({"query-r1": at_rank_1, "query-r4": [0.99] * 3, "query-r64": high})
    study = sweeping([1, 4, 64], ["query"])
    found = judge("rank_1_within_1_point", study=study, sweep_runs=runs)
    assert found["verdict"] == verdict
    assert "query at rank 1 minus rank 64" in found["finding"]
    assert "rank 4" not in found["finding"]


def test_a_sweep_needs_the_ranks_and_weights_of_the_claim() -> None:
    runs = swept({"query-r2": [0.5], "query-r4": [0.5]})
    study = sweeping([2, 4], ["query"])
    for name in IDS[9:12]:
        found = judge(name, study=study, sweep_runs=runs)
        assert found["verdict"] == "not measured"


def test_a_missing_cell_of_the_sweep_is_named() -> None:
    study = sweeping([1, 8], ["query", "value"])
    runs = swept({"query-r1": [0.90, 0.91, 0.92], "query-r8": [0.90, 0.91, 0.92]})
    found = judge("rank_1_within_1_point", study=study, sweep_runs=runs)
    assert found["verdict"] == "inconclusive"
    assert "value at rank 1 minus rank 8" in found["finding"]
    none = judge("rank_1_within_1_point", study=study)
    assert none["verdict"] == "not measured"
    assert "query at rank 1 minus rank 8" in none["finding"]


@pytest.mark.parametrize(
    ("two", "verdict"),
    [
        ([0.899, 0.900, 0.901], "supported"),
        ([0.950, 0.951, 0.949], "supported"),
        ([0.890, 0.891, 0.892], "contradicted"),
        ([0.890, 0.901, 0.905], "inconclusive"),
    ],
)
def test_query_and_value_are_compared_with_all_four(two: list[float], verdict: str) -> None:
    # Weights may stand in any order.
    names = ["value+query", "query+key+value+output"]
    runs = swept({f"{names[0]}-r8": two, f"{names[1]}-r8": [0.899, 0.900, 0.901]})
    study = sweeping([8], names)
    found = judge("query_value_as_good_as_all_four", study=study, sweep_runs=runs)
    assert found["verdict"] == verdict
    assert "on sst2" in found["finding"].lower()


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.05, "supported"), (-0.05, "contradicted"), (0.0, "inconclusive")]
)
def test_value_and_output_are_compared_with_query_and_key(shift: float, verdict: str) -> None:
    base = [0.80, 0.81, 0.82]
    values = [score + shift + noise for score, noise in zip(base, (0, 0.001, -0.001), strict=True)]
    runs = swept({"value+output-r2": values, "query+key-r2": base})
    study = sweeping([2], ["value+output", "query+key"])
    found = judge("value_output_better_than_query_key", study=study, sweep_runs=runs)
    assert found["verdict"] == verdict


def test_one_runs_score_changes_the_verdict() -> None:
    scores = {"value+output-r2": [0.86, 0.87, 0.85], "query+key-r2": [0.80, 0.81, 0.79]}
    study = sweeping([2], list(scores_names(scores)))
    name = "value_output_better_than_query_key"
    assert judge(name, study=study, sweep_runs=swept(scores))["verdict"] == "supported"
    scores["value+output-r2"][2] = 0.70
    assert judge(name, study=study, sweep_runs=swept(scores))["verdict"] == "inconclusive"


def scores_names(scores: dict[str, list[float]]) -> list[str]:
    return [name.rpartition("-r")[0] for name in scores]


def variations(ours: float | None, theirs: float | None, n: int = 5) -> list[dict[str, Any]]:
    """Return `metrics/stability.json`: these of half an epoch and of the first, others later."""
    rows = []
    for task in STUDY["main_metrics"]:
        for method, cv in (("lora", ours), ("adapter_h", theirs)):
            row = {"task": task, "method": method, "n": n, "mean": 0.8, "std": 0.1}
            rows += [row | {"epoch": 0.5, "step": 5, "cv": 0.5}]
            rows += [row | {"epoch": 1.0, "step": 10, "cv": cv}]
            rows += [row | {"epoch": 2.0, "step": 20, "cv": 0.7 if method == "lora" else 0.01}]
    return rows


@pytest.mark.parametrize(
    ("ours", "theirs", "n", "verdict"),
    [
        (0.0624, 0.5001, 5, "supported"),  # the source's
        (0.10, 0.30, 5, "inconclusive"),  # five seeds need a ratio above 3.1
        (0.10, 0.30, 20, "supported"),
        (0.50, 0.05, 5, "contradicted"),
        (None, None, 1, "not measured"),
        (0.0, 0.3, 5, "not measured"),
    ],
)
def test_stability_is_compared_in_the_first_epoch(
    ours: float | None, theirs: float | None, n: int, verdict: str
) -> None:
    rows = variations(ours, theirs, n)
    found = judge("more_stable_than_adapters_in_first_epoch", stability=rows)
    assert found["verdict"] == verdict


def test_stability_needs_every_task() -> None:
    rows = [row for row in variations(0.06, 0.5) if row["task"] == "sst2"]
    gaps = {"gaps": [{"method": "adapter_h", "task": "stsb"}]}
    name = "more_stable_than_adapters_in_first_epoch"
    found = judge(name, stability=rows, statistics=gaps)
    assert found["verdict"] == "inconclusive"
    assert "stsb, AdapterH: no results" in found["finding"]


def test_one_study_cannot_say_what_its_start_gives() -> None:
    found = judge("mnli_init_helps_rte_most")
    assert found["verdict"] == "not measured"
    assert "stsb started from mnli" in found["finding"]
    assert "dvc exp run -S mnli_init.mode=none" in found["settles"]
    none = STUDY | {"mnli_init": STUDY["mnli_init"] | {"mode": "none"}}
    found = judge("mnli_init_helps_rte_most", study=none)
    assert "no task started from another" in found["finding"]


def test_what_differs_from_the_source_is_said() -> None:
    machine = {"cpu": "AMD EPYC", "cores": 2, "gpu": None}
    study = STUDY | {"model": {"name": "minilm"}}
    statistics = differences((-0.01, 0.01), (-0.01, 0.01))
    parts = {"statistics": statistics, "profile": {"machine": machine}}
    found = judge("lora_within_2_percent", study=study, **parts)
    assert found["differs"] == (
        "Here model minilm (the source: roberta-base); data sst2, stsb (the source: sst2, mrpc, "
        "cola, rte, stsb); hardware AMD EPYC, 2 cores (the source: NVIDIA GeForce RTX 3080 Ti)."
    )
    gpu = machine | {"gpu": "NVIDIA GeForce RTX 3080 Ti"}
    tasks = dict.fromkeys(("sst2", "mrpc", "cola", "rte", "stsb"), "accuracy")
    same = make(study=STUDY | {"main_metrics": tasks}, profile={"machine": gpu})
    assert claims(same)[0]["differs"] is None


def test_claims_do_not_change_the_results() -> None:
    results = make(statistics=differences((-0.01, 0.01), (-0.01, 0.01)), profile=memory(0.5, 0.5))
    before = json.dumps([results.study, results.statistics, results.profile])
    assert claims(results) == claims(replace(results))
    assert json.dumps([results.study, results.statistics, results.profile]) == before
