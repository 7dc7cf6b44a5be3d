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
from peft_study.findings.printed import printed_rows
from peft_study.findings.published import check_published, published
from peft_study.findings.results import PublishedRow
from peft_study.records import costs, scores
from peft_study.records.costs import EnergyCost, IsoAccuracy, Profile, Ratio, Recipe
from peft_study.records.scores import EqualScoreRun, StabilityPoint, SweepRow
from peft_study.records.study import InitInfo, ModelInfo, Report, StudyInfo, SweepInfo

CSV = ROOT / "src/peft_study/findings/published.csv"
GLUE = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")
METRICS = dict.fromkeys(GLUE, "accuracy") | {"cola": "matthews", "stsb": "pearson"}
TABLES = list(dict.fromkeys(f"{row.source} table {row.table}" for row in printed_rows()))
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
    gaps = (scores.Gap(*without, "seed 3: the loss is nan"),) if without else ()
    rows = tuple(
        scores.CellStatistics(t, m, metric, at, 5, score, 0.01, score, *rest)
        for m, t in names
        for metric in {*METRICS.values(), "accuracy_matched"}
        for at, score in REPORTS.items()
    )
    return {
        "cells": {(m, t): builders.cell(m, t, 0.9, trainable=counts) for m, t in names},
        "statistics": builders.statistics(cells=rows, gaps=gaps),
    }


def find(rows: list[PublishedRow], **wanted: Any) -> PublishedRow:
    """Return the one row with these values."""
    found = [row for row in rows if all(getattr(row, key) == wanted[key] for key in wanted)]
    assert len(found) == 1, found
    return found[0]


def test_every_row_is_carried_over_whole(tmp_path: Path) -> None:
    with CSV.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 328
    found = rows_of(study(*TABLES))
    for row, out in zip(rows, found, strict=True):
        assert (row["source"], row["table"], row["model"]) == (out.source, out.table, out.model)
        assert (out.ours, out.difference, out.like) == (None, None, False)
        assert out.note
        assert None not in row  # as many cells as columns
        hundredths = row["metric"].endswith("_percent")
        if row["metric"] in {*METRICS.values(), "accuracy_overall", "average"} or hundredths:
            assert out.is_fraction
            assert 0 < out.published <= 1
        else:
            assert not out.is_fraction
            assert out.published == float(row["value"])
    write_json(tmp_path / "published.json", found)
    assert read_record(tmp_path / "published.json", list[PublishedRow]) == found


@pytest.mark.parametrize("name", TABLES)
def test_names_select_a_table_or_one_model_of_it(name: str) -> None:
    assert check_published([name]) == []
    rows = rows_of(study(name))
    assert {f"{row.source} table {row.table}" for row in rows} == {name}
    assert rows
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
        **{
            "published": 0.776,
            "published_std": None,
            "published_seeds": None,
            "ours": 0.9,
            "ours_std": 0.01,
            "n": 5,
        },
        **{"difference": 0.9 - 0.776, "like": True},
    }
    assert all(row.ours == 0.9 for row in rows)
    rows = rows_of(study("tiny table 2"), **summary(without=("lora", "rte")))
    missing = find(rows, method="lora", task="rte")
    assert missing.ours is None
    assert missing.note == "this cell has no results: seed 3: the loss is nan"


def test_methods_that_are_none_here_are_kept() -> None:
    described = study("hu2021 table 2 roberta-base", mnli_init=STARTED)
    rows = rows_of(described, scored=True)
    bitfit = [row for row in rows if row.method == "bitfit"]
    assert len(bitfit) == 8 + 2  # with the average and the parameters
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
    assert [(row.published, row.ours) for row in lora] == [(0.874, 0.9), (0.852, 0.9)]
    assert [row.like for row in lora] == [not restricted, restricted]
    adapters = [row for row in rows if row.method == "adapter_h" and row.task == "rte"]
    assert [(row.published, row.ours) for row in adapters] == [(0.834, 0.9), (0.729, 0.9)]
    assert [row.like for row in adapters] == [False, restricted]
    assert "6.0M parameters; restricted setup" in str(adapters[0].note)
    assert "ours has 0.8M parameters" in str(adapters[0].note)


def test_starts_are_compared_cell_by_cell() -> None:
    """The LoRA paper starts three tasks from MNLI, and full fine-tuning none."""
    tasks, name = STARTED.tasks, "hu2021 table 2 roberta-base"
    for started in ((), STARTED.tasks, ("rte",)):
        described = study(name, mnli_init=replace(STARTED, tasks=started))
        for row in rows_of(described, scored=True):
            if row.method in ("lora", "full_ft") and row.task:
                theirs, ours = row.method == "lora" and row.task in tasks, row.task in started
                assert row.like == (theirs == ours)
                assert row.difference == 0.9 - row.published
                assert ("starts from MNLI" in str(row.note)) == theirs
                assert ("ours starts from the encoder" in str(row.note)) == (theirs and not ours)
                adapted = "ours starts from weights adapted to mnli" in str(row.note)
                assert adapted == (ours and not theirs)


def test_another_intermediate_task_or_one_encoder_for_all_is_another_start() -> None:
    name = "hu2021 table 2 roberta-base"
    for init, said in (
        (replace(STARTED, task="nli"), "ours starts from weights adapted to nli"),
        (replace(STARTED, mode="full_ft"), "ours starts from an encoder fine-tuned on mnli"),
    ):
        row = find(rows_of(study(name, mnli_init=init), scored=True), method="lora", task="rte")
        assert (row.ours, row.like) == (0.9, False)
        assert said in str(row.note)


def test_the_average_is_the_mean_of_the_medians_of_all_tasks() -> None:
    name, wanted = "hu2021 table 2 roberta-base", {"method": "lora", "metric": "average"}
    parts = summary()
    higher = tuple(
        replace(c, median=0.5) if (c.method, c.task) == ("lora", "rte") else c
        for c in parts["statistics"].cells
    )
    parts["statistics"] = builders.statistics(cells=higher)
    row = find(rows_of(study(name, mnli_init=STARTED), **parts), **wanted)
    assert (row.published, row.like) == (0.872, True)
    assert row.ours == pytest.approx((7 * 0.9 + 0.5) / 8)
    assert row.note == "ours is the mean of the medians of its 8 tasks"
    row = find(rows_of(study(name), **parts), **wanted)
    assert (row.ours is not None, row.like) == (True, False)
    assert "unlike on mrpc, rte, stsb: ours starts from the encoder" in str(row.note)
    row = find(rows_of(study(name), **summary(without=("lora", "rte"))), **wanted)
    assert (row.ours, row.note) == (None, "no score on rte")


@pytest.mark.parametrize(
    ("settings", "why"), [({"r": 4}, "r 4"), ({"targets": ("query", "key")}, "query+key")]
)
def test_another_rank_or_other_weights_are_unlike(settings: dict[str, Any], why: str) -> None:
    methods = (builders.method("lora", **settings),)
    rows = rows_of(study("chu table 1", methods=methods), scored=True)
    for row in rows:
        assert (row.ours, row.difference, row.like) == (0.9, 0.9 - row.published, False)
        assert why in str(row.note)


def sweep(task: str = "mnli", metric: str = "accuracy", **medians: float) -> tuple[SweepRow, ...]:
    """Return `metrics/sweep.json` with these scores of `query` by rank, such as r1=0.8."""
    rest = (None, 0.0, None, None, 1, 1, 2)
    by_rank = {int(rank[1:]): median for rank, median in medians.items()}
    return tuple(SweepRow(task, ("query",), r, metric, 1, m, *rest) for r, m in by_rank.items())


def test_a_sweep_is_matched_by_rank_and_weights() -> None:
    table = sweep(r1=0.7, r64=0.8) + sweep(metric="accuracy_matched", r1=0.75)
    info = SweepInfo("mnli", (1, 2, 64), (("query",),))
    rows = rows_of(study("chu table 3", methods=(), sweep=info), sweep=table)
    first = find(rows, weights=("query",), rank=1)
    assert first.ours == 0.75
    assert first.difference == pytest.approx(0.75 - 0.7274)
    assert "matched rows, as theirs" in str(first.note)
    last = find(rows, weights=("query",), rank=64)
    assert last.ours == 0.8
    assert "theirs of the matched" in str(last.note)
    assert sum(row.ours is not None for row in rows) == 2
    gap = find(rows, weights=("query",), rank=2)
    assert str(gap.note).endswith("this cell of the sweep has no results")
    other = find(rows, weights=("query", "value"), rank=1)
    assert str(other.note).endswith("the sweep does not have these weights at this rank")


def test_a_sweep_has_the_row_that_the_method_itself_does_not() -> None:
    info = SweepInfo("mnli", (1,), (("query",),))
    rows = rows_of(study("chu table 3", sweep=info), sweep=sweep(r1=0.7), **summary())
    row = find(rows, weights=("query",), rank=1)
    assert (row.ours, row.like) == (0.7, True)
    row = find(rows, weights=("query",), rank=2)
    assert (row.ours, row.like) == (0.9, False)
    assert "ours has r 8; ours adapts query+value" in str(row.note)


def test_another_models_levels_are_unlike() -> None:
    info = SweepInfo("mnli", (1,), (("query",),))
    rows = rows_of(study("hu2021 table 6", methods=(), sweep=info), sweep=sweep(r1=0.8))
    row = find(rows, task="mnli", weights=("query",), rank=1)
    assert (row.ours, row.difference, row.like) == (0.8, 0.8 - 0.907, False)
    assert row.published_std == 0.001
    assert "levels are not comparable" in str(row.note)
    wikisql = [row for row in rows if row.task == "wikisql"]
    assert len(wikisql) == 15
    assert all(str(row.note).endswith("not a task of this study") for row in wikisql)


def test_a_score_of_no_stated_rank_is_beside_all_ranks() -> None:
    table = sweep("stsb", "pearson", r1=0.8, r2=0.9)
    info = SweepInfo("stsb", (1, 2), (("query",),))
    rows = rows_of(study("liu table D", model="large", methods=(), sweep=info), sweep=table)
    row = find(rows, weights=("query",))
    assert row.published == 0.86
    assert row.ours == pytest.approx(0.85)
    assert (row.n, row.like) == (2, False)
    assert row.difference == pytest.approx(-0.01)
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


def test_a_share_of_full_fine_tuning_is_the_ratio_of_the_medians() -> None:
    lora = builders.method("lora", r=3, targets=("query", "key", "value", "output"))
    methods = (lora, builders.method("full_ft"))
    described = study("liu table C", model="large", methods=methods)
    row = find(rows_of(described, scored=True), method="lora", metric="share_of_full_ft")
    assert (row.published, row.ours, row.like) == (0.981, 1.0, True)
    row = find(rows_of(described), method="lora", metric="share_of_full_ft")
    assert (row.ours, row.difference) == (None, None)
    assert "not both it and full fine-tuning have results" in str(row.note)


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
def test_costs_of_other_hardware_are_unlike(rank: int) -> None:
    rows = rows_of(study("tiny table 3"), profile=profile(rank=rank))
    row = find(rows, method="lora", task="sst2")
    assert (row.ours, row.difference, row.like) == (0.5, 0.5 - 0.63, False)
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


def test_time_saved_and_overheads_are_ratios_on_this_machine() -> None:
    recipe, one = Recipe("adapter_h", bottleneck=3), Ratio(1.25, None, None)
    steps = (builders.step(recipe, one), builders.step(Recipe("full_ft"), one))
    steps = (steps[0], replace(steps[1], seconds_per_epoch=costs.MeanAndStd(25.7, 1.0)))
    methods = (builders.method("adapter_h", bottleneck=3), builders.method("full_ft"))
    latency = (builders.latency(recipe, one, one, seconds=0.03),)
    found = builders.profile(builders.task_profile("stsb", training=steps, inference=latency))
    described = study("liu table B", "hu2021 table 1", model="large", methods=methods)
    rows = rows_of(described, profile=found)
    row = find(rows, method="adapter_h", metric="time_saved")
    assert (row.ours, row.published, row.like) == (0.5, 0.545, False)
    assert "other hardware" in str(row.note)
    row = find(rows, method="adapter_h", metric="overhead_batch_1")
    assert (row.ours, row.published, row.like) == (0.25, 0.303, False)
    row = find(rows, method="adapter_h", metric="latency_ms_batch_1")
    assert (row.ours, row.published_std) == (30.0, 2.2)
    row = find(rows, method="adapter_h", metric="overhead_batch_16")
    assert "ours is measured one by one, and of the whole validation set" in str(row.note)
    row = find(rows_of(described), method="adapter_h", metric="time_saved")
    assert str(row.note).endswith("not measured on this task")


def test_equal_scores_count_where_every_run_reaches_them() -> None:
    run = EqualScoreRun("sst2", "lora", 1, 0.9, True, 1, 1.0, 9.0, None)
    runs = [replace(run, epoch=epoch) for epoch in (1.0, 2.0, 6.0)]
    iso = IsoAccuracy(0.005, costs.EnergySource(None, "no meter"), tuple(runs), ())
    described = study("tiny table 5/6")
    wanted = {"method": "lora", "task": "sst2"}
    rows = rows_of(described, iso_accuracy=iso)
    epochs = find(rows, metric="iso_accuracy_epochs", **wanted)
    assert (epochs.ours, epochs.difference, epochs.like, epochs.n) == (2.0, -6.0, True, 3)
    seconds = find(rows, metric="iso_accuracy_seconds", **wanted)
    assert (seconds.ours, seconds.like) == (9.0, False)
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
    crosses = [(r["method"], r["value"]) for r in drawn.rows if r["kind"] == "unlike"]
    assert crosses == [("full_ft", 0.948), ("lora", 0.951)]  # of another model
    assert "grey" in drawn.caption
    page = render(results, made_up.CLAIMS, rows, made_up.FIGURES, made_up.SPECS)
    assert "95.1 ± 0.2" in page


def test_a_recipe_stands_where_it_is_the_same() -> None:
    found = study("hu2021 table 2 roberta-base")
    lora = found.methods[0]
    parts = summary()
    cells = {(n.replace("lora", "mine"), t): of for (n, t), of in parts["cells"].items()}
    rows = tuple(
        replace(row, method=row.method.replace("lora", "mine")) for row in parts["statistics"].cells
    )
    parts = {"cells": cells, "statistics": builders.statistics(cells=rows)}
    mine = replace(lora, name="mine", label="Mine")
    of = {"source": "hu2021", "task": "sst2", "metric": "accuracy", "rank": 8}
    row = find(rows_of(replace(found, methods=(mine,)), **parts), method="mine", **of)
    assert (row.ours, row.like) == (0.9, True)
    assert find(rows_of(found, scored=True), method="lora", **of).ours == 0.9
    # One with other settings does not.
    small = replace(mine, settings=lora.settings | {"r": 1})
    row = find(rows_of(replace(found, methods=(small,)), **parts), method="lora", **of)
    assert row.ours is None
    assert row.note == "this study has it with other settings alone"
    # The built-in with other settings gives way to a recipe with the row's own.
    both = replace(found, methods=(replace(lora, settings=lora.settings | {"r": 1}), mine))
    assert find(rows_of(both, **parts), method="mine", **of).like
