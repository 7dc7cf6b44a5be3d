"""A method with tasks and seeds of its own: compared where it can be, and no gap elsewhere."""

from dataclasses import replace
from pathlib import Path

import pytest

import builders
from peft_study.files import write_json
from peft_study.findings.claims import claims
from peft_study.findings.figures import figures
from peft_study.findings.page.render import render
from peft_study.findings.page.tables import tables
from peft_study.findings.page.words import conclusion, overview
from peft_study.findings.published import published
from peft_study.findings.results import Results, load_cells
from peft_study.findings.statistics import summarise, summary
from peft_study.records.scores import Cell, Cells, Rows
from peft_study.records.study import ModelInfo, StudyInfo

METRICS = {"mrpc": "accuracy", "rte": "accuracy"}
SCORES = {
    "lora": {"mrpc": [0.87, 0.88, 0.89], "rte": [0.70, 0.72, 0.71]},
    "full_ft": {"mrpc": [0.88, 0.89, 0.90], "rte": [0.72, 0.73, 0.74]},
    "loralib_lora": {"mrpc": [0.865, 0.885]},
}
DATA = {"validation": Rows(400, "0" * 64)}


def study(*seeds: int) -> StudyInfo:
    """Return a study whose loralib is a reference on mrpc alone, with these seeds."""
    found = builders.study(("lora", "loralib_lora", "full_ft"), METRICS)
    lora, loralib, full = found.methods
    loralib = replace(loralib, tasks=("mrpc",), seeds=seeds)
    model = ModelInfo("FacebookAI/roberta-base", None, 128)
    return replace(found, methods=(lora, loralib, full), model=model, published=("tiny table 2",))


def cells(*seeds: int) -> Cells:
    found = {
        (method, task): replace(builders.cell(method, task, *scores), data=DATA)
        for method, tasks in SCORES.items()
        for task, scores in tasks.items()
    }
    mine = found["loralib_lora", "mrpc"]
    own = dict(zip(map(str, seeds), mine.seeds.values(), strict=True))
    return found | {("loralib_lora", "mrpc"): replace(mine, seeds=own)}


def results(*seeds: int) -> Results:
    about, scored = study(*seeds), cells(*seeds)
    found = summarise(about, scored, [], [], builders.values)
    return builders.results(about, statistics=found, cells=scored)


def write(cell: Cell, metrics: Path) -> None:
    write_json(metrics / "runs" / cell.method / f"{cell.task}.json", cell)


def test_what_is_not_planned_is_no_gap_and_what_is_missing_is_one(tmp_path: Path) -> None:
    for (method, task), cell in cells(1, 2).items():
        if (method, task) != ("full_ft", "rte"):
            write(cell, tmp_path)
    found, gaps = load_cells(study(1, 2), tmp_path)
    assert set(found) == set(cells(1, 2)) - {("full_ft", "rte")}
    assert [(gap.method, gap.task) for gap in gaps] == [("full_ft", "rte")]


@pytest.mark.parametrize(("seeds", "shared"), [((1, 2), 2), ((1, 7), 1), ((7, 8), 0)])
def test_differences_are_over_the_seeds_that_both_have(seeds: tuple[int, int], shared: int) -> None:
    found = results(*seeds)
    (row,) = found.main_differences_of("lora", "loralib_lora")
    assert (row.task, row.n, row.low is not None) == ("mrpc", shared, shared == 2)
    if shared:
        assert row.mean == pytest.approx([0.005, 0.0][shared - 1])
    words = conclusion(row, found.study)[1]
    assert ("without two seeds that both have" in words) == (shared < 2)
    claim = next(c for c in claims(found) if c.id == "ours_within_1_1_points_of_loralib")
    assert "rte" not in claim.finding
    assert ("mrpc: no seed that both have" in claim.finding) == (shared == 0)
    assert claim.verdict == ["not measured", "inconclusive", "inconclusive"][shared]
    within = next(c for c in claims(found) if c.id == "lora_within_2_percent")
    assert "not compared" not in within.finding


def test_an_average_is_of_all_tasks_or_of_none() -> None:
    found = results(1, 7).statistics
    averages = {row.method: row for row in found.averages if row.evaluation == "best"}
    assert averages["lora"].mean_of_medians == pytest.approx((0.88 + 0.71) / 2)
    assert (averages["loralib_lora"].mean_of_medians, averages["loralib_lora"].gaps) == (None, ())
    table = summary(study(1, 7), found)
    assert (set(table["mrpc"]), set(table["rte"])) == (set(SCORES), {"lora", "full_ft"})


def test_measures_over_all_tasks_are_of_the_methods_that_have_them_all() -> None:
    """From six tasks on; loralib has all of them here, but other seeds."""
    names = [f"task_{number}" for number in range(6)]
    about = builders.study(("lora", "loralib_lora", "full_ft"), dict.fromkeys(names, "accuracy"))
    lora, loralib, full = about.methods
    about = replace(about, methods=(lora, replace(loralib, seeds=(7, 8)), full))
    scored = {
        (method, name): builders.cell(method, name, 0.7, 0.71, *([] if "lib" in method else [0.72]))
        for method in about.labels
        for name in names
    }
    found = summarise(about, scored, [], [], builders.values)
    assert [row.method for row in found.overall] == ["lora", "full_ft"]


def test_the_page_says_what_is_so_by_design_and_names_no_gap() -> None:
    found = results(7, 8)
    rows = published(found)
    drawn = figures(found, rows)
    page = render(found, claims(found), rows, [], {})
    for text in (page, *(figure.caption for figure in drawn)):
        assert "ithout results" not in text
        assert "no results" not in text
    note = "By design: LoRA (loralib) is trained on mrpc alone with seeds 7, 8."
    (scores, *_) = tables(found, rows)["scores"]
    assert note in scores.notes
    assert overview(found.study)["LoRA (loralib)"].endswith("; on mrpc alone with seeds 7, 8")
    told = {(row.method, row.task): row.note for row in rows if row.metric == "accuracy"}
    assert told["loralib_lora", "rte"] == "this study does not train it on this task"


def test_a_task_that_one_of_the_two_does_not_have_is_not_compared_by_design() -> None:
    found = results(1, 2)
    lora, loralib, full = found.study.methods
    about = replace(found.study, methods=(lora, loralib, replace(full, tasks=("mrpc",))))
    scored = {key: cell for key, cell in found.cells.items() if key != ("full_ft", "rte")}
    told = summarise(about, scored, [], [], builders.values)
    page = render(builders.results(about, statistics=told, cells=scored), [], [], [], {})
    assert "rte: not compared, by design without Full fine-tuning." in page
    assert "on 1 of 1 tasks (mrpc)" in page
