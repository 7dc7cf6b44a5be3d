"""Figures of made-up results: their rows, their words, their files, and what is missing."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import builders
import many_methods
from conftest import run_files
from peft_study.findings.figures import charts, figures
from peft_study.findings.figures.figure import (
    Figure,
    render_svg,
    specification,
    write_figures,
)
from peft_study.findings.results import PublishedRow, Results
from peft_study.records import costs
from peft_study.records import scores as runs
from peft_study.records.study import MethodInfo, SweepInfo

METHODS = ("lora", "peft_lora", "adapter_h", "full_ft")
SIXTH = MethodInfo("bitfit", "BitFit", "selective", "bitfit", 5, False, {})
MAIN = {"movie_polarity": "accuracy", "tweet_rating": "pearson"}
QUERY, BOTH = ("query",), ("key", "value")
SWEPT = ((QUERY, 1), (QUERY, 8), (BOTH, 1))
ALL = [
    *("scores", "parameters", "curves", "stability", "rank_weights", "rank_curves"),
    *("rank_learning_curves", "step_time", "memory", "latency", "equal_scores"),
]
GAP = runs.Gap("adapter_h", "tweet_rating", "no results")
OF = ("hu2021", "2", "", "roberta", "lora", ("query", "value"), 8, "movie_polarity", "accuracy")
PAPER = PublishedRow(*OF, True, 0.81, None, None, None, None, None, None, True, None)
PUBLISHED = [
    PAPER,
    replace(PAPER, rank=64, published=0.5),
    replace(PAPER, method="full_ft", weights=(), rank=None, published=0.79, like=False),
]


def made_up(seeds: int = 3, gap: bool = False, others: tuple[MethodInfo, ...] = ()) -> Results:
    """Return results of two tasks, four methods and `others`, and of a sweep."""
    study = builders.study(METHODS, MAIN, sweep=SweepInfo("movie_polarity", (1, 8), (QUERY, BOTH)))
    study = replace(study, methods=study.methods + others)
    cells, cv = {}, None if seeds == 1 else 0.02
    stability, curves, equal, statistics = [], [], [], []
    for place, (task, metric) in enumerate(MAIN.items()):
        for number, method in enumerate(study.labels):
            if gap and (method, task) == (GAP.method, GAP.task):
                continue
            scores = [0.7 + 0.05 * place + 0.02 * number + 0.01 * seed for seed in range(seeds)]
            mean, ends = sum(scores) / seeds, (min(scores), max(scores))
            about: dict[str, Any] = {"trainable": runs.Counts(10 ** (3 + number), 5, 0)}
            about |= {"metric": metric, "first": scores, "last": scores}
            cells[method, task] = builders.cell(method, task, *scores, **about)
            spread = (None, None) if cv is None else (mean - 0.01, mean + 0.01)
            of_seeds = (seeds, mean, None, mean, cv, *ends, *spread, None)
            statistics.append(runs.CellStatistics(task, method, metric, "cross_fitted", *of_seeds))
            for at in (1.0, 2.0):
                when = (int(4 * at), at, seeds, mean)
                curves.append(runs.CurvePoint(task, method, metric, *when, *ends, 0.6, 0.7))
                stability.append(runs.StabilityPoint(task, method, *when, None, cv and at * cv))
            for seed in range(seeds):
                reached = (method, seed) != ("adapter_h", 0)
                spent = (4, 1.0 + seed, 9.5, None) if reached else (None, None, None, None)
                equal.append(runs.EqualScoreRun(task, method, seed + 1, 0.7, reached, *spent))
    where, of_sweep = ("movie_polarity", "lora", "accuracy"), (0.01, 0.7, None, None, 9, 5, 14)
    return builders.results(
        study,
        statistics=builders.statistics(cells=tuple(statistics), gaps=(GAP,) if gap else ()),
        profile=_profile(study.methods),
        iso_accuracy=costs.IsoAccuracy(0.005, costs.EnergySource(None, "no"), tuple(equal), ()),
        stability=tuple(stability),
        curves=tuple(curves),
        sweep=tuple(
            runs.SweepRow("movie_polarity", w, r, "accuracy", seeds, 0.7 + r / 100, *of_sweep)
            for w, r in SWEPT
        ),
        sweep_curves=tuple(
            runs.CurvePoint(*where, 4, at, seeds, 0.7, 0.69, 0.71, 0.6, 0.7, weights, rank)
            for weights, rank in SWEPT
            for at in (1.0, 2.0)
        ),
        sweep_runs=(replace(cells["lora", "movie_polarity"], weights=QUERY, rank=1),),
        cells=cells,
    )


def _profile(methods: tuple[MethodInfo, ...]) -> costs.Profile:
    recipes = [costs.Recipe(m.name, m.rank, m.weights, m.bottleneck) for m in methods]
    ratio, base = costs.Ratio(0.8, None, None), costs.Ratio(1.0, None, None)
    slower, parts = costs.Ratio(1.1, 1.0, 1.2), costs.MemoryParts(*[10**8] * 6)
    models = (costs.Recipe(), *recipes, replace(recipes[0], merged=True))
    found = builders.task_profile(
        "movie_polarity",
        batches={method.name: costs.Batch(32, 1) for method in methods},
        training=tuple(
            builders.step(recipe, base if recipe.method == "full_ft" else ratio)
            for recipe in [*recipes, replace(recipes[0], rank=64)]
        ),
        memory=tuple(replace(builders.memory(r, 52 * 10**7, 5e8), parts=parts) for r in recipes),
        inference=tuple(
            builders.latency(recipe, slower, slower)
            for recipe in models
            if recipe.method != "full_ft"
        ),
    )
    return builders.profile(found)


def by_name(found: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in found}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all figures, written where figures of an earlier study lay."""
    folder = tmp_path_factory.mktemp("written") / "plots"
    for stale in (folder / "svg/old.svg", folder / "specs/old.json"):
        stale.parent.mkdir(parents=True)
        stale.write_text("")
    write_figures(figures(made_up(), PUBLISHED), folder)
    return folder


@pytest.mark.slow
def test_every_figure_is_written_with_its_n_and_its_unit(written: Path) -> None:
    assert sorted(by_name(figures(made_up(), PUBLISHED))) == sorted(ALL)
    assert not [*written.rglob("old.*")]
    for listed in json.loads((written / "figures.json").read_text()):
        assert listed["unit"]
        assert listed["alt"].endswith(".")
        assert "n = " in listed["caption"]
        root = ElementTree.parse(written.parent / listed["svg"]).getroot()
        assert root.tag.endswith("svg")
        assert float(root.attrib["width"]) <= 680
        rows = json.loads((written.parent / listed["data"]).read_text())
        spec = json.loads((written / "specs" / f"{listed['name']}.json").read_text())
        assert spec["data"]["values"] == rows
        assert "n = " in str(spec["title"])
        drawn = (written.parent / listed["svg"]).read_text()
        assert "url(#clip" not in re.sub(r'id="[^"]*"', "", drawn)


def test_rows_are_the_inputs() -> None:
    results = made_up()
    found = by_name(figures(results, PUBLISHED))
    scores = found["scores"].rows
    mean = next(row for row in scores if row["kind"] == "mean")
    cell = results.statistics.cells[0]
    for field in ("task", "method", "n", "low", "high"):
        assert mean[field] == getattr(cell, field)
    assert mean["value"] == cell.mean
    # The row of another rank than the study's is no value to compare with.
    assert [row["value"] for row in scores if row["kind"] == "published"] == [0.81]
    assert [row["value"] for row in scores if row["kind"] == "unlike"] == [0.79]
    assert sum(row["kind"] == "seed" for row in scores) == 3 * 4 * 2
    none = {"weights": (), "rank": None}
    assert [row | none for row in found["curves"].rows] == [asdict(p) for p in results.curves]
    peaks = [row["bytes"] for row in found["memory"].rows if row["part"] == "peak"]
    assert peaks == [52 * 10**7] * 4
    assert "1 of 3" in found["equal_scores"].caption
    assert "key+value at rank 8" in found["rank_weights"].caption
    assert sum(row["kind"] == "seed" for row in found["rank_curves"].rows) == 3
    by_rank = found["rank_learning_curves"].rows
    # Two ranks on query, one on key and value; full fine-tuning beside both; two evaluations each.
    assert len(by_rank) == (2 + 1 + 2) * 2
    assert {(row["weights"], row["series"]) for row in by_rank if row["method"] != "full_ft"} == {
        *(("query", "r = 1"), ("query", "r = 8"), ("key+value", "r = 1"))
    }

    profile = results.profile
    assert profile
    (task,) = profile.tasks
    training = [replace(c, seconds=replace(c.seconds, forward=0.05)) for c in task.training]
    busy = replace(profile.machine, other_cpu_share=0.06)
    task = replace(task, training=tuple(training))
    profile = replace(profile, tasks=(task,), machine=busy)
    cells = (replace(cell, mean=0.123), *results.statistics.cells[1:])
    results = replace(results, statistics=builders.statistics(cells=cells), profile=profile)
    changed = by_name(figures(results, PUBLISHED))
    assert any(row["value"] == 0.123 for row in changed["scores"].rows)
    assert changed["step_time"].rows != found["step_time"].rows
    assert "other programs used 6% of the processors" in changed["memory"].caption


def test_methods_have_labels_and_marks_of_their_own() -> None:
    found = by_name(figures(made_up(others=(SIXTH,)), []))
    by_method = [figure for name, figure in found.items() if not name.startswith("rank_")]
    assert all("BitFit" in render_svg(figure) for figure in by_method)
    assert [row["label"] for row in found["latency"].rows[::2]] == [
        *("LoRA (ours), r = 8", "LoRA (PEFT), r = 8", "AdapterH, bottleneck 16"),
        *("BitFit", "LoRA (ours), r = 8, merged", "base model, a second copy"),
    ]
    key = charts.methods_key(["bitfit", *METHODS], made_up(others=(SIXTH,)).study)
    assert list(key.names) == [*METHODS, "bitfit"]
    marks = list(zip(key.colours, key.shapes, strict=True))
    assert marks[0] == ("#0072B2", "circle")
    assert marks[3:] == [("#000000", "cross"), ("#009E73", "triangle-down")]


def test_what_is_missing_leaves_its_figures_out() -> None:
    results = made_up()
    none = replace(results, profile=None, sweep=(), sweep_runs=(), sweep_curves=())
    assert not {"step_time", "memory", "latency", "rank_weights"} & set(by_name(figures(none, [])))
    study = replace(results.study, methods=())
    parts = {part: getattr(results, part) for part in ("sweep", "sweep_runs", "sweep_curves")}
    sweep = by_name(figures(builders.results(study, **parts), []))
    assert list(sweep) == ["rank_weights", "rank_curves", "rank_learning_curves"]
    assert figures(builders.results(study), []) == []


def test_a_study_of_a_sweep_alone_shows_what_the_profile_measured_of_lora() -> None:
    study = builders.study()
    lora = tuple(method for method in study.methods if method.name == "lora")
    found = builders.results(replace(study, methods=()), profile=_profile(lora))
    drawn = by_name(figures(found, []))
    assert list(drawn) == ["step_time", "memory", "latency"]
    for figure in drawn.values():
        assert "LoRA (ours)" in json.dumps(figure.rows)
        assert "<svg" in render_svg(figure)


@pytest.mark.parametrize("name", ["scores", "parameters", "curves"])
def test_gaps_are_named_and_one_seed_has_no_interval(name: str) -> None:
    gap = by_name(figures(made_up(gap=True), []))[name]
    assert "Without results: AdapterH on tweet_rating (" in gap.caption
    alone = by_name(figures(made_up(seeds=1), []))
    assert "stability" not in alone
    assert "n = 1 seed" in alone[name].caption
    assert "<svg" in render_svg(alone[name])


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, written: Path) -> None:
    write_figures(figures(made_up(), PUBLISHED), tmp_path / "plots")
    assert run_files(tmp_path / "plots") == run_files(written)


def test_a_family_has_a_colour_and_no_two_methods_the_same_marks() -> None:
    study = many_methods.results().study
    key = charts.methods_key(study.labels, study)
    marks = dict(zip(key.names, zip(key.colours, key.shapes, strict=True), strict=True))
    families: dict[str, set[str]] = {}
    for method in study.methods:
        families.setdefault(method.family, set()).add(marks[method.name][0])
    assert all(len(colours) == 1 for colours in families.values())
    assert len({colour for (colour,) in families.values()}) == len(families)
    # Without colour, too.
    assert len({shape for _, shape in marks.values()}) == len(marks) == 12
    # The marks are the study's: fewer methods in a figure keep theirs.
    few = charts.methods_key(["ia3", "lora"], study)
    assert (few.colours[1], few.shapes[1]) == marks["ia3"]
    # More members than shapes.
    loras = tuple(many_methods.recipe(f"lora_{n}", f"{n}", "lora", "lora") for n in range(40))
    crowd = replace(study, methods=(*study.methods, *loras))
    key = charts.methods_key(crowd.labels, crowd)
    assert len({*zip(key.colours, key.shapes, strict=True)}) == 52


def columns(key: charts.Key) -> object:
    found: Any = key.colour().to_dict()
    return found["legend"]["columns"]


def test_long_names_fold_and_legends_wrap() -> None:
    found = by_name(figures(many_methods.results(tasks=2), []))
    label = many_methods.LONG.format(64)
    assert len(label) == 60
    for name in ("scores", "ranks", "latency"):
        axis = json.dumps(specification(found[name]))
        assert label not in axis or "split" in axis
        assert "\\u2026" in axis
    legend = charts.methods_key(["lora_r64"], many_methods.results(tasks=2).study)
    assert columns(legend) == 1
    short = charts.methods_key(["lora", "full_ft"], made_up().study)
    assert columns(short) == 5
    for name in ("front", "ranks", "curves", "parameters"):
        root = ElementTree.fromstring(render_svg(found[name]))
        assert float(root.attrib["width"]) <= 680


def test_the_front_and_the_ranks_are_named() -> None:
    found = by_name(figures(many_methods.results(slow=("lora_r64",)), []))
    front = found["front"]
    assert {row["cost"] for row in front.rows} == {"parameters", "memory", "seconds"}
    assert "lora_r64" not in {row["method"] for row in front.rows}
    assert f"{many_methods.LONG.format(64)}: has not learned every task" in front.caption
    members = [r["method"] for r in front.rows if r["front"] and r["cost"] == "parameters"]
    assert members[0] == "lora_r1"
    assert front.alt.startswith("By trained parameters: LoRA of rank 1 ")
    ranks = [row for row in found["ranks"].rows if row["measure"] == "rank"]
    assert len(ranks) == 12
    assert ranks[0]["value"] == 1
    assert {row["measure"] for row in found["ranks"].rows} == {"rank", "iqm", "better"}
    few = by_name(figures(many_methods.results(tasks=2), []))["ranks"]
    assert {row["measure"] for row in few.rows} == {"rank"}
    assert "Fewer than six tasks" in few.caption
    # Nothing learned: nothing to rank, and no front.
    nothing = figures(many_methods.results(tasks=1, slow=tuple(many_methods.METHODS)), [])
    assert not {"front", "ranks"} & set(by_name(nothing))
