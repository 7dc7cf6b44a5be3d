"""Published rows beside made-up results."""

import csv
import json
from dataclasses import replace
from typing import Any

import pytest

import made_up
from conftest import ROOT
from peft_study.findings.figures import figures
from peft_study.findings.page.render import render
from peft_study.findings.published import check_published, published
from peft_study.findings.results import Results

CSV = ROOT / "src/peft_study/findings/published.csv"
GLUE = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")
METRICS = dict.fromkeys(GLUE, "accuracy") | {"cola": "matthews", "stsb": "pearson"}
TABLES = [
    *("hu2021 table 2", "hu2021 table 6", "chu table 1", "chu table 3", "liu table B"),
    *("liu table C", "liu table D", "keyquery table Figure 3", "tiny table 1", "tiny table 2"),
    *("tiny table 3", "tiny table 4", "tiny table 5/6"),
]


def study(names: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "FacebookAI/roberta-base"},
        "methods": ["lora", "loralib_lora", "full_ft"],
        "main_metrics": METRICS,
        "mnli_init": {"mode": "none", "task": "mnli", "tasks": []},
        "adapters": {
            method: {"r": 8, "targets": ["query", "value"]} for method in ("lora", "loralib_lora")
        },
        "published": names,
    } | changes


STARTED = {"mode": "per_method", "task": "mnli", "tasks": ["mrpc", "rte", "stsb"]}


def make(described: dict[str, Any], **parts: Any) -> Results:
    empty: dict[str, Any] = {
        **{"summary": {}, "statistics": {}, "profile": {}, "iso_accuracy": {}, "stability": []},
        **{"curves": [], "sweep": [], "sweep_curves": [], "sweep_runs": {}, "cells": {}},
        "parity": {},
    }
    return Results(study=described, **(empty | parts))


def summary(median: float = 0.9, adapter: int = 294_912) -> dict[str, Any]:
    """Return a summary with this score everywhere."""
    value = {"median": median, "std": 0.01, "n": 5}
    scores = dict.fromkeys({*METRICS.values(), "accuracy_matched"}, value)
    trainable = {"adapter": adapter, "head": 2, "total": 124_647_170}
    methods = ("lora", "loralib_lora", "adapter_h", "full_ft")
    return {task: {m: scores | {"trainable": trainable} for m in methods} for task in GLUE}


def find(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the one row with these values."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_every_row_of_the_studys_tasks_is_carried_over_whole() -> None:
    with CSV.open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    assert len(every) == 252
    rows = [row for row in every if row["task"] in ("", *GLUE)]
    found = published(make(study(TABLES)))
    for row, out in zip(rows, found, strict=True):
        assert (row["source"], row["table"], row["model"]) == (
            *(out["source"], out["table"], out["model"]),
        )
        assert out["ours"] is None
        assert out["difference"] is None
        in_a_unit = row["metric"].endswith(("_m", "_mb", "_w", "_kj", "_seconds", "_epochs"))
        assert out["is_fraction"] != (in_a_unit or row["metric"].startswith("seconds"))
        assert out["note"]
        assert None not in row  # as many cells as columns
        if row["metric"] in {*METRICS.values(), "accuracy_overall"} or "cv_" in row["metric"]:
            assert 0 < out["published"] <= 1
        else:
            assert out["published"] == float(row["value"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name", TABLES)
def test_names_select_a_table_or_one_model_of_it(name: str) -> None:
    assert check_published([name]) == []
    rows = published(make(study([name])))
    models = {row["model"] for row in rows}
    assert {f"{row['source']} table {row['table']}" for row in rows} == {name}
    narrow = [published(make(study([f"{name} {model}"]))) for model in models]
    assert sum(map(len, narrow)) == len(rows)
    assert published(make(study([]))) == []


def test_a_name_of_no_row_is_a_problem() -> None:
    problems = check_published(["tiny table 2", "tiny table 22", "hu2021 table 2 bert"])
    assert len(problems) == 2
    assert problems[0].startswith("published: got 'tiny table 22'; did you mean 'tiny table 2'?")


def test_scores_stand_beside_ours() -> None:
    rows = published(make(study(["tiny table 2"]), summary=summary(0.9)))
    row = find(rows, method="loralib_lora", task="rte")
    assert row | {"note": ""} == {
        **{"source": "tiny", "table": "2", "citation": '"Tiny Reproduction: LoRA", table 2'},
        **{"model": "roberta-base", "method": "loralib_lora", "weights": "query+value", "rank": 8},
        **{
            "task": "rte",
            "is_fraction": True,
            "metric": "accuracy",
            "published": 0.776,
            "published_std": None,
        },
        **{"ours": 0.9, "ours_std": 0.01, "n": 5, "difference": 0.9 - 0.776, "note": ""},
    }
    assert all(row["ours"] == 0.9 for row in rows)


def test_a_missing_cell_is_named() -> None:
    cells = summary()
    del cells["rte"]["lora"]
    row = find(published(make(study(["tiny table 2"]), summary=cells)), method="lora", task="rte")
    assert row["ours"] is None
    assert "this cell has no results" in row["note"]


def test_methods_that_are_none_here_are_kept() -> None:
    described = study(["hu2021 table 2 roberta-base"], mnli_init=STARTED)
    rows = published(make(described, summary=summary()))
    bitfit = [row for row in rows if row["method"] == "bitfit"]
    assert len(bitfit) == 8
    assert all(row["ours"] is None and "no method" in row["note"] for row in bitfit)
    sizes = {row["note"][:16] for row in rows if row["method"] == "adapter_d"}
    assert sizes == {"0.3M parameters;", "0.9M parameters;"}


def test_hu_mnli_is_over_all_rows() -> None:
    cells = summary(0.9)
    cells["mnli"]["lora"]["accuracy"] = {"median": 0.8, "std": None, "n": 1}
    described = study(["hu2021 table 2 roberta-base"], mnli_init=STARTED)
    row = find(published(make(described, summary=cells)), method="lora", task="mnli")
    assert (row["ours"], row["n"]) == (0.8, 1)
    assert row["published_std"] == 0.003


@pytest.mark.parametrize("restricted", [True, False])
def test_the_restricted_setup_is_told_from_the_other(restricted: bool) -> None:
    init = {"mode": "none", "task": "mnli", "tasks": []} if restricted else STARTED
    described = study(
        ["hu2021 table 2 roberta-large"],
        mnli_init=init,
        model={"name": "FacebookAI/roberta-large"},
        methods=["lora", "adapter_h"],
    )
    rows = published(make(described, summary=summary(0.9, 835_968)))
    lora = [row for row in rows if row["method"] == "lora" and row["task"] == "rte"]
    assert [row["published"] for row in lora] == [0.874, 0.852]
    assert [row["ours"] is not None for row in lora] == [not restricted, restricted]
    adapters = [row for row in rows if row["method"] == "adapter_h" and row["task"] == "rte"]
    assert [row["published"] for row in adapters] == [0.834, 0.729]  # 6.0M, 0.8M
    assert [row["ours"] is not None for row in adapters] == [False, restricted]


def test_another_rank_or_other_weights_are_no_counterpart() -> None:
    adapters = {"lora": {"r": 4, "targets": ["query", "value"]}}
    rows = published(make(study(["chu table 1"], adapters=adapters), summary=summary()))
    assert all(row["ours"] is None and "r 4" in row["note"] for row in rows)
    adapters = {"lora": {"r": 8, "targets": ["query", "key"]}}
    rows = published(make(study(["chu table 1"], adapters=adapters), summary=summary()))
    assert all(row["ours"] is None and "query+key" in row["note"] for row in rows)


def sweep(task: str = "mnli", metric: str = "accuracy", **medians: float) -> list[dict[str, Any]]:
    """Return `metrics/sweep.json` with these scores of `query` by rank, such as r1=0.8."""
    return [
        {"task": task, "weights": "query", "rank": int(rank[1:]), "metric": metric}
        | {"median": median, "std": None, "n": 1}
        for rank, median in medians.items()
    ]


def test_a_sweep_is_matched_by_rank_and_weights() -> None:
    described = study(["chu table 3"], methods=[])
    table = sweep(r1=0.7, r64=0.8) + sweep(metric="accuracy_matched", r1=0.75)
    rows = published(make(described, sweep=table))
    first = find(rows, weights="query", rank=1)
    assert first["ours"] == 0.75
    assert first["difference"] == pytest.approx(0.75 - 0.7274)
    assert "matched rows, as theirs" in first["note"]
    last = find(rows, weights="query", rank=64)
    assert last["ours"] == 0.8
    assert "theirs of the matched" in last["note"]
    assert sum(row["ours"] is not None for row in rows) == 2


def test_another_models_levels_are_not_subtracted() -> None:
    rows = published(make(study(["hu2021 table 6"], methods=[]), sweep=sweep(r1=0.8)))
    row = find(rows, task="mnli", weights="query", rank=1)
    assert (row["ours"], row["difference"]) == (0.8, None)
    assert "levels are not comparable" in row["note"]
    assert all(row["ours"] is None for row in rows if row["task"] == "wikisql")


def test_a_score_of_no_stated_rank_is_beside_all_ranks() -> None:
    large = {"name": "FacebookAI/roberta-large"}
    table = sweep("stsb", "pearson", r1=0.8, r2=0.9)
    rows = published(make(study(["liu table D"], methods=[], model=large), sweep=table))
    row = find(rows, weights="query")
    assert row["published"] == 0.86
    assert row["ours"] == pytest.approx(0.85)
    assert (row["n"], row["difference"]) == (2, None)
    assert "ranks 1, 2" in row["note"]


def test_variation_is_that_of_the_first_and_the_last_epoch() -> None:
    adapters = {"lora": {"r": 3, "targets": ["query", "key", "value", "output"]}}
    described = study(
        ["liu table C"], model={"name": "x/roberta-large"}, adapters=adapters, methods=["lora"]
    )
    base = {"task": "stsb", "method": "lora", "n": 5}
    curve = [base | {"epoch": e, "cv": cv} for e, cv in ((0.5, 0.9), (1.0, 0.06), (5.0, 0.005))]
    rows = published(make(described, stability=curve))
    first = find(rows, method="lora", metric="cv_first_epoch")
    assert (first["published"], first["ours"], first["n"]) == (0.0624, 0.06, 5)
    assert find(rows, method="lora", metric="cv_last_epoch")["ours"] == 0.005
    assert find(rows, method="adapter_h", metric="cv_last_epoch")["ours"] is None


def test_parameters_are_in_millions() -> None:
    rows = published(make(study(["tiny table 1"]), summary=summary()))
    assert find(rows, method="lora")["ours"] == pytest.approx(0.294912)
    assert find(rows, method="full_ft")["ours"] == pytest.approx(124.64717)
    assert find(rows, method="full_ft")["published"] == 124.6


def profile(gpu: str | None = None, source: str | None = None) -> dict[str, Any]:
    cells = {"lora": {"watts": 50.0}} if source else None
    return {
        "task": "sst2",
        "machine": {"gpu": gpu},
        "memory": {"lora": {"mean": 2e9}},
        "inference": {
            "lora": {"validation_set": {"seconds": {"median": 9.0}}},
            "lora merged": {"validation_set": {"seconds": {"median": 0.5}}},
        },
        "energy": {"source": source, "cells": cells},
    }


def test_costs_of_other_hardware_are_shown_and_not_subtracted() -> None:
    rows = published(make(study(["tiny table 3"]), profile=profile()))
    row = find(rows, method="lora", task="sst2")
    assert (row["ours"], row["difference"]) == (0.5, None)
    assert "other hardware" in row["note"]
    assert all(row["ours"] is None for row in rows if row["task"] != "sst2")


def test_a_resident_set_is_no_gpu_memory_and_an_estimate_no_power() -> None:
    names = ["tiny table 4", "tiny table 5/6"]
    wanted = {"method": "lora", "task": "sst2"}
    for gpu, source, megabytes, watts in ((None, "estimate", None, None), ("A", "NVML", 2e3, 50.0)):
        rows = published(make(study(names), profile=profile(gpu, source)))
        assert find(rows, metric="gpu_memory_mean_mb", **wanted)["ours"] == megabytes
        assert find(rows, metric="power_mean_w", **wanted)["ours"] == watts


def test_equal_scores_count_where_every_run_reaches_them() -> None:
    run = {"task": "sst2", "method": "lora", "reached": True, "seconds": 9.0, "joules": None}
    runs = [run | {"epoch": epoch} for epoch in (1.0, 2.0, 6.0)]
    described = study(["tiny table 5/6"])
    wanted = {"method": "lora", "task": "sst2"}
    rows = published(make(described, iso_accuracy={"runs": runs}))
    epochs = find(rows, metric="iso_accuracy_epochs", **wanted)
    assert (epochs["ours"], epochs["difference"], epochs["n"]) == (2.0, -6.0, 3)
    assert find(rows, metric="iso_accuracy_seconds", **wanted)["difference"] is None
    assert find(rows, metric="iso_accuracy_energy_kj", **wanted)["ours"] is None
    never = run | {"reached": False, "epoch": None, "seconds": None}
    rows = published(make(described, iso_accuracy={"runs": [*runs, never]}))
    epochs = find(rows, metric="iso_accuracy_epochs", **wanted)
    assert epochs["ours"] is None
    assert "3 of 4 runs" in epochs["note"]


def test_a_study_that_reproduces_a_table_draws_and_tells_it() -> None:
    """From the rows to the figure and the page, of which the forms must fit together."""
    results = made_up.results()
    results.study["published"] = ["hu2021 table 2 roberta-base", "tiny table 3"]
    results.study["main_metrics"] = {"sst2": "accuracy", "rating": "pearson"}
    cells = [
        c | {"task": c["task"].replace("film_review", "sst2")} for c in results.statistics["cells"]
    ]
    results.statistics["cells"] = cells
    rows = published(results)
    scores = next(f for f in figures(replace(results, cells={}), rows) if f.name == "scores")
    crosses = [(r["method"], r["value"]) for r in scores.rows if r["kind"] == "published"]
    assert crosses == [("full_ft", 0.948), ("lora", 0.951)]
    parts = (made_up.CLAIMS, rows, made_up.FIGURES, made_up.SPECS, made_up.RAN)
    assert "95.1 ± 0.2" in render(results, *parts)
