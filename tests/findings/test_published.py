"""Published rows beside made-up results."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builders
import made_up
from conftest import ROOT
from peft_study.files import read_record, write_json
from peft_study.findings.figures import figures
from peft_study.findings.page.render import render
from peft_study.findings.published import check_published, published
from peft_study.findings.results import PublishedRow
from peft_study.records import costs, scores
from peft_study.records.costs import EnergyCost, IsoAccuracy, Profile, Ratio, Recipe
from peft_study.records.scores import EqualScoreRun, StabilityPoint, SweepRow
from peft_study.records.study import InitInfo, ModelInfo, Report, StudyInfo

CSV = ROOT / "src/peft_study/findings/published.csv"
GLUE = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")
METRICS = dict.fromkeys(GLUE, "accuracy") | {"cola": "matthews", "stsb": "pearson"}
TABLES = [
    *("hu2021 table 2", "hu2021 table 6", "chu table 1", "chu table 3", "liu table B"),
    *("liu table C", "liu table D", "keyquery table Figure 3", "tiny table 1", "tiny table 2"),
    *("tiny table 3", "tiny table 4", "tiny table 5/6"),
]
STARTED = InitInfo("per_method", "mnli", ("mrpc", "rte", "stsb"))
REPORTS: dict[Report, float] = {"best": 0.9, "last": 0.1}


def study(*names: str, model: str = "base", **changes: Any) -> StudyInfo:
    model_info = ModelInfo(f"FacebookAI/roberta-{model}", None, 128)
    found = builders.study(("lora", "loralib_lora", "full_ft"), METRICS, published=names)
    return replace(found, model=model_info, **changes)


def rows_of(described: StudyInfo, scored: bool = False, **parts: Any) -> list[PublishedRow]:
    """Return the rows beside results of these parts, or of the same score everywhere."""
    return published(builders.results(described, **(summary() if scored else {}) | parts))


def summary(adapter: int = 294_912, without: tuple[str, str] | None = None) -> dict[str, Any]:
    """Return the parts of results with one score everywhere, but in one cell."""
    methods = ("lora", "loralib_lora", "adapter_h", "full_ft")
    names = [(m, t) for m in methods for t in GLUE if (m, t) != without]
    counts = scores.Counts(adapter, 2, 124_647_170)
    rest = (None, 0.0, 0.0, None, None, None)
    rows = tuple(
        scores.CellStatistics(t, m, metric, at, 5, score, 0.01, score, *rest)
        for m, t in names
        for metric in {*METRICS.values(), "accuracy_matched"}
        for at, score in REPORTS.items()
    )
    return {
        "cells": {(m, t): builders.cell(m, t, 0.9, trainable=counts) for m, t in names},
        "statistics": builders.statistics(cells=rows),
    }


def find(rows: list[PublishedRow], **wanted: Any) -> PublishedRow:
    """Return the one row with these values."""
    found = [row for row in rows if all(getattr(row, key) == wanted[key] for key in wanted)]
    assert len(found) == 1, found
    return found[0]


def test_every_row_of_the_studys_tasks_is_carried_over_whole(tmp_path: Path) -> None:
    with CSV.open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    assert len(every) == 252
    rows = [row for row in every if row["task"] in ("", *GLUE)]
    found = rows_of(study(*TABLES))
    for row, out in zip(rows, found, strict=True):
        assert (row["source"], row["table"], row["model"]) == (out.source, out.table, out.model)
        assert (out.ours, out.difference) == (None, None)
        in_a_unit = row["metric"].endswith(("_m", "_mb", "_w", "_kj", "_seconds", "_epochs"))
        assert out.is_fraction != (in_a_unit or row["metric"].startswith("seconds"))
        assert out.note
        assert None not in row  # as many cells as columns
        if row["metric"] in {*METRICS.values(), "accuracy_overall"} or "cv_" in row["metric"]:
            assert 0 < out.published <= 1
        else:
            assert out.published == float(row["value"])
    write_json(tmp_path / "published.json", found)
    assert read_record(tmp_path / "published.json", list[PublishedRow]) == found


@pytest.mark.parametrize("name", TABLES)
def test_names_select_a_table_or_one_model_of_it(name: str) -> None:
    assert check_published([name]) == []
    rows = rows_of(study(name))
    assert {f"{row.source} table {row.table}" for row in rows} == {name}
    models = {row.model for row in rows}
    narrow = [rows_of(study(f"{name} {model}")) for model in models]
    assert sum(map(len, narrow)) == len(rows)
    assert rows_of(study()) == []


def test_a_name_of_no_row_is_a_problem() -> None:
    problems = check_published(["tiny table 2", "tiny table 22", "hu2021 table 2 bert"])
    assert len(problems) == 2
    assert problems[0].startswith("published: got 'tiny table 22'; did you mean 'tiny table 2'?")


def test_scores_stand_beside_ours() -> None:
    rows = rows_of(study("tiny table 2"), scored=True)
    row = find(rows, method="loralib_lora", task="rte")
    assert vars(row) | {"note": None} == {
        **{"source": "tiny", "table": "2", "citation": '"Tiny Reproduction: LoRA", table 2'},
        **{"model": "roberta-base", "method": "loralib_lora", "weights": ("query", "value")},
        **{"rank": 8, "task": "rte", "metric": "accuracy", "is_fraction": True, "note": None},
        **{"published": 0.776, "published_std": None, "ours": 0.9, "ours_std": 0.01, "n": 5},
        "difference": 0.9 - 0.776,
    }
    assert all(row.ours == 0.9 for row in rows)
    rows = rows_of(study("tiny table 2"), **summary(without=("lora", "rte")))
    missing = find(rows, method="lora", task="rte")
    assert missing.ours is None
    assert "this cell has no results" in str(missing.note)


def test_methods_that_are_none_here_are_kept() -> None:
    described = study("hu2021 table 2 roberta-base", mnli_init=STARTED)
    rows = rows_of(described, scored=True)
    bitfit = [row for row in rows if row.method == "bitfit"]
    assert len(bitfit) == 8
    assert all(row.ours is None and "no method" in str(row.note) for row in bitfit)
    sizes = {str(row.note)[:16] for row in rows if row.method == "adapter_d"}
    assert sizes == {"0.3M parameters;", "0.9M parameters;"}


def test_hu_mnli_is_over_all_rows() -> None:
    statistics = summary()["statistics"]
    other = {"median": 0.8, "std": None, "n": 1}
    cells = tuple(
        replace(c, **other if (c.method, c.task, c.metric) == ("lora", "mnli", "accuracy") else {})
        for c in statistics.cells
    )
    described = study("hu2021 table 2 roberta-base", mnli_init=STARTED)
    rows = rows_of(described, scored=True, statistics=replace(statistics, cells=cells))
    row = find(rows, method="lora", task="mnli")
    assert (row.ours, row.n, row.published_std) == (0.8, 1, 0.003)


@pytest.mark.parametrize("restricted", [True, False])
def test_the_restricted_setup_is_told_from_the_other(restricted: bool) -> None:
    methods = builders.method("lora"), builders.method("adapter_h")
    started = {} if restricted else {"mnli_init": STARTED}
    described = study("hu2021 table 2 roberta-large", model="large", methods=methods, **started)
    rows = rows_of(described, **summary(835_968))
    lora = [row for row in rows if row.method == "lora" and row.task == "rte"]
    assert [row.published for row in lora] == [0.874, 0.852]
    assert [row.ours is not None for row in lora] == [not restricted, restricted]
    adapters = [row for row in rows if row.method == "adapter_h" and row.task == "rte"]
    assert [row.published for row in adapters] == [0.834, 0.729]  # 6.0M, 0.8M
    assert [row.ours is not None for row in adapters] == [False, restricted]


@pytest.mark.parametrize(
    ("settings", "why"), [({"r": 4}, "r 4"), ({"targets": ("query", "key")}, "query+key")]
)
def test_another_rank_or_other_weights_are_no_match(settings: dict[str, Any], why: str) -> None:
    methods = (builders.method("lora", **settings),)
    rows = rows_of(study("chu table 1", methods=methods), scored=True)
    assert all(row.ours is None and why in str(row.note) for row in rows)


def sweep(task: str = "mnli", metric: str = "accuracy", **medians: float) -> tuple[SweepRow, ...]:
    """Return `metrics/sweep.json` with these scores of `query` by rank, such as r1=0.8."""
    rest = (None, 0.0, None, None, 1, 1, 2)
    by_rank = {int(rank[1:]): median for rank, median in medians.items()}
    return tuple(SweepRow(task, ("query",), r, metric, 1, m, *rest) for r, m in by_rank.items())


def test_a_sweep_is_matched_by_rank_and_weights() -> None:
    table = sweep(r1=0.7, r64=0.8) + sweep(metric="accuracy_matched", r1=0.75)
    rows = rows_of(study("chu table 3", methods=()), sweep=table)
    first = find(rows, weights=("query",), rank=1)
    assert first.ours == 0.75
    assert first.difference == pytest.approx(0.75 - 0.7274)
    assert "matched rows, as theirs" in str(first.note)
    last = find(rows, weights=("query",), rank=64)
    assert last.ours == 0.8
    assert "theirs of the matched" in str(last.note)
    assert sum(row.ours is not None for row in rows) == 2


def test_another_models_levels_are_not_subtracted() -> None:
    rows = rows_of(study("hu2021 table 6", methods=()), sweep=sweep(r1=0.8))
    row = find(rows, task="mnli", weights=("query",), rank=1)
    assert (row.ours, row.difference) == (0.8, None)
    assert "levels are not comparable" in str(row.note)
    assert all(row.ours is None for row in rows if row.task == "wikisql")


def test_a_score_of_no_stated_rank_is_beside_all_ranks() -> None:
    table = sweep("stsb", "pearson", r1=0.8, r2=0.9)
    rows = rows_of(study("liu table D", model="large", methods=()), sweep=table)
    row = find(rows, weights=("query",))
    assert row.published == 0.86
    assert row.ours == pytest.approx(0.85)
    assert (row.n, row.difference) == (2, None)
    assert "ranks 1, 2" in str(row.note)


def test_variation_is_that_of_the_first_and_the_last_epoch() -> None:
    lora = builders.method("lora", r=3, targets=("query", "key", "value", "output"))
    curve = tuple(
        StabilityPoint("stsb", "lora", int(10 * epoch), epoch, 5, 0.8, 0.1, cv)
        for epoch, cv in ((0.5, 0.9), (1.0, 0.06), (5.0, 0.005))
    )
    rows = rows_of(study("liu table C", model="large", methods=(lora,)), stability=curve)
    first = find(rows, method="lora", metric="cv_first_epoch")
    assert (first.published, first.ours, first.n) == (0.0624, 0.06, 5)
    assert find(rows, method="lora", metric="cv_last_epoch").ours == 0.005
    assert find(rows, method="adapter_h", metric="cv_last_epoch").ours is None


def test_parameters_are_in_millions() -> None:
    rows = rows_of(study("tiny table 1"), scored=True)
    assert find(rows, method="lora").ours == pytest.approx(0.294912)
    assert find(rows, method="full_ft").ours == pytest.approx(124.64717)
    assert find(rows, method="full_ft").published == 124.6


def profile(gpu: str | None = None, source: str | None = None, rank: int = 8) -> Profile:
    recipe, one = Recipe("lora", rank), Ratio(1.0, None, None)
    latencies = {Recipe(): 0.4, recipe: 9.0, replace(recipe, merged=True): 0.5}
    task = builders.task_profile(
        "sst2",
        memory=(builders.memory(recipe, 3e9, 2e9, libraries=5 * 10**8),),
        inference=tuple(builders.latency(of, one, one, seconds=at) for of, at in latencies.items()),
        energy=(EnergyCost(recipe, 1.0, 2.0, 50.0),) if source else (),
    )
    return builders.profile(
        builders.task_profile("rte"),
        task,
        machine=builders.machine(gpu=gpu),
        energy=costs.EnergySource(source, None),
    )


@pytest.mark.parametrize("rank", [8, 4])
def test_costs_of_other_hardware_are_shown_and_not_subtracted(rank: int) -> None:
    rows = rows_of(study("tiny table 3"), profile=profile(rank=rank))
    row = find(rows, method="lora", task="sst2")
    assert (row.ours, row.difference) == (0.5, None)
    assert "other hardware" in str(row.note)
    assert ("other hardware, measured with r = 4" in str(row.note)) == (rank == 4)
    assert find(rows, method="full_ft", task="sst2").ours == 0.4  # it adds no module
    assert all(row.ours is None for row in rows if row.task != "sst2")


def test_a_resident_set_is_no_gpu_memory_and_an_estimate_no_power() -> None:
    wanted = {"method": "lora", "task": "sst2"}
    for gpu, source, megabytes, watts in ((None, "estimate", None, None), ("A", "NVML", 2e3, 50.0)):
        rows = rows_of(study("tiny table 4", "tiny table 5/6"), profile=profile(gpu, source))
        assert find(rows, metric="gpu_memory_mean_mb", **wanted).ours == megabytes
        assert find(rows, metric="power_mean_w", **wanted).ours == watts


def test_equal_scores_count_where_every_run_reaches_them() -> None:
    run = EqualScoreRun("sst2", "lora", 1, 0.9, True, 1, 1.0, 9.0, None)
    runs = [replace(run, epoch=epoch) for epoch in (1.0, 2.0, 6.0)]
    iso = IsoAccuracy(0.005, costs.EnergySource(None, "no meter"), tuple(runs), ())
    described = study("tiny table 5/6")
    wanted = {"method": "lora", "task": "sst2"}
    rows = rows_of(described, iso_accuracy=iso)
    epochs = find(rows, metric="iso_accuracy_epochs", **wanted)
    assert (epochs.ours, epochs.difference, epochs.n) == (2.0, -6.0, 3)
    assert find(rows, metric="iso_accuracy_seconds", **wanted).difference is None
    assert find(rows, metric="iso_accuracy_energy_kj", **wanted).ours is None
    never = replace(run, reached=False, epoch=None, seconds=None)
    rows = rows_of(described, iso_accuracy=replace(iso, runs=(*runs, never)))
    epochs = find(rows, metric="iso_accuracy_epochs", **wanted)
    assert epochs.ours is None
    assert "3 of 4 runs" in str(epochs.note)


def test_a_study_that_reproduces_a_table_draws_and_tells_it() -> None:
    """From the rows to the figure and the page, of which the forms must fit together."""
    results = made_up.results()
    named = {"film_review": "sst2"}
    tasks = tuple(replace(t, name=named.get(t.name, t.name)) for t in results.study.tasks)
    cells = tuple(replace(c, task=named.get(c.task, c.task)) for c in results.statistics.cells)
    names = ("hu2021 table 2 roberta-base", "tiny table 3")
    described = replace(results.study, published=names, tasks=tasks)
    statistics = replace(results.statistics, cells=cells)
    results = replace(results, study=described, statistics=statistics)
    rows = published(results)
    drawn = next(f for f in figures(replace(results, cells={}), rows) if f.name == "scores")
    crosses = [(r["method"], r["value"]) for r in drawn.rows if r["kind"] == "published"]
    assert crosses == [("full_ft", 0.948), ("lora", 0.951)]
    page = render(results, made_up.CLAIMS, rows, made_up.FIGURES, made_up.SPECS)
    assert "95.1 ± 0.2" in page
