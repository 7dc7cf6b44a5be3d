"""Every table of the sources, and the study and file in which it comes out beside our numbers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import pytest

import builders
import made_up
from conftest import ROOT
from peft_study import presets
from peft_study.configure import _report
from peft_study.findings.figures import figures
from peft_study.findings.page.papers import papers_tables
from peft_study.findings.page.tables import tables
from peft_study.findings.page.words import parameters
from peft_study.findings.printed import printed_rows
from peft_study.findings.published import published
from peft_study.findings.results import PublishedRow, Results
from peft_study.methods import METHODS
from peft_study.records.study import InitInfo, ModelInfo, StudyInfo

NAMES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
LARGE = ("hu_table2_roberta_large", "hu_table2_restricted_bottleneck_8")
# By table, and model where it has several: the studies in which its rows come out, and the file
# besides metrics/published.json that has ours in the source's form (.md: below metrics/tables/).
TABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "hu2021 table 1": (LARGE[1:], "plots/svg/latency.svg"),
    "hu2021 table 2 roberta-base": (("hu_table2_roberta_base",), "scores.md"),
    "hu2021 table 2 roberta-large": (LARGE, "scores.md"),
    "hu2021 table 2 deberta-v2-xxlarge": (("keyquery_deberta",), "scores.md"),
    "hu2021 table 5": (("hu_table6_roberta_base",), "sweep.md"),
    "hu2021 table 6": (("hu_table6_roberta_base",), "sweep.md"),
    "chu table 1": (("chu_table1",), "published.md"),
    "chu table 3": (("chu_table3",), "sweep.md"),
    "liu table A": (("liu_comparison",), "scores.md"),
    "liu table B": (("liu_comparison",), "plots/svg/step_time.svg"),
    "liu table C": (("liu_comparison",), "scores.md"),
    "liu table D": (("liu_weights",), "sweep.md"),
    "keyquery table Figure 1": (("keyquery_mrpc",), "plots/svg/rank_weights.svg"),
    "keyquery table Figure 2": (("keyquery_rte",), "plots/svg/rank_weights.svg"),
    "keyquery table Figure 3": (("keyquery_sst2",), "scores.md"),
    "keyquery table Figure 4": (("keyquery_deberta",), "scores.md"),
    "tiny table 1": (("tiny_table2",), "scores.md"),
    "tiny table 2": (("tiny_table2",), "published.md"),
    "tiny table 3": (("tiny_table2",), "plots/svg/latency.svg"),
    "tiny table 4": (("tiny_table2",), "plots/svg/memory.svg"),
    "tiny table 5/6": (("tiny_table2",), "plots/svg/equal_scores.svg"),
}
# The figures that the seeds draw, which are of these tables or of learning curves.
FIGURES = {
    "chu Figure 1": ("chu_table1", "plots/svg/scores.svg"),
    "keyquery Figure 1": ("keyquery_mrpc", "plots/svg/rank_learning_curves.svg"),
    "keyquery Figure 2": ("keyquery_rte", "plots/svg/rank_learning_curves.svg"),
    "keyquery Figure 3": ("keyquery_sst2", "plots/svg/curves.svg"),
    "keyquery Figure 4": ("keyquery_deberta", "plots/svg/curves.svg"),
}
EXPENSIVE = "not measured on this task"


class Out:
    """What comes out of a study that has results of everything."""

    def __init__(self, name: str) -> None:
        self.params = presets.load(name)
        self.study = _report(self.params)
        self.results = made_up.whole(self.study)
        self.rows = published(self.results)
        self.tables = papers_tables(self.results, self.rows)

    @cached_property
    def figures(self) -> set[str]:
        """The files of its figures."""
        return {f"plots/svg/{figure.name}.svg" for figure in figures(self.results, self.rows)}


@pytest.fixture(scope="module")
def out() -> dict[str, Out]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return {name: Out(name) for name in NAMES}


def name_of(row: PublishedRow, study: StudyInfo) -> str:
    """Return what its source calls a row's method: a recipe may have another name."""
    own = study.method(row.method)
    return own.published or own.name if own else row.method


def values(row: PublishedRow) -> tuple[object, ...]:
    return row.weights, row.rank, row.task, row.metric


def test_every_printed_row_comes_out_of_a_study(out: dict[str, Out]) -> None:
    found: dict[str, set[object]] = {
        name: {
            (r.source, r.table, r.model, name_of(r, of.study), *values(r), r.published)
            for r in of.rows
            if r.ours is not None or r.note
        }
        for name, of in out.items()
    }
    for row in printed_rows():
        (table,) = row.names & set(TABLES)
        about = (row.source, row.table, row.model, row.name, row.adapted)
        metric = row.metric.removesuffix("_percent").removesuffix("_overall")
        rank, task = int(row.rank) if row.rank else None, row.task or None
        names, file = TABLES[table]
        for name in names:
            assert (*about, rank, task, metric, row.number(row.value)) in found[name], row
            assert file in out[name].tables or file in out[name].figures, (name, file)


def test_the_rows_of_the_studies_own_tables_have_ours(out: dict[str, Out]) -> None:
    """Chu's, Liu's, the key and query study's and Tiny's tables, whole."""
    for table, (names, _) in TABLES.items():
        for name in names if not table.startswith("hu2021") else ():
            rows = [row for row in out[name].rows if table == f"{row.source} table {row.table}"]
            assert rows
            for row in rows:
                assert row.ours is not None, (name, row)


def test_every_figure_of_the_seeds_is_drawn_by_a_study(out: dict[str, Out]) -> None:
    for name, file in FIGURES.values():
        assert file in out[name].figures


def test_chu_table_1_is_paper_ours_difference(out: dict[str, Out]) -> None:
    """SST-2 and QQP of the LoRA paper start from the encoder too; its MRPC starts from MNLI."""
    lines, minus = out["chu_table1"].tables["published.md"].splitlines(), "\N{MINUS SIGN}"
    for task, theirs, change in (
        ("sst2", "95.1 ± 0.2", f"{minus}15.1"),
        ("qqp", "90.8 ± 0.1", f"{minus}10.8"),
        ("mrpc", "89.7 ± 0.7", f"({minus}9.7)"),
    ):
        name = f"Hu et al. 2021, table 2: {task} (accuracy), LoRA (query+value, r = 8)"
        line = f"| {name} | {theirs} | 80.0 ± 1.0 | {change} |"
        assert [shown for shown in lines if shown.startswith(line)]


def test_tiny_table_2_has_the_papers_row(out: dict[str, Out]) -> None:
    rows = out["tiny_table2"].rows
    paper = {row.task: row for row in rows if (row.source, row.method) == ("hu2021", "lora")}
    assert {task: (row.ours, row.like) for task, row in paper.items() if task} == {
        **dict.fromkeys(("sst2", "cola"), (0.8, True)),
        **dict.fromkeys(("mrpc", "rte", "stsb"), (0.8, False)),
        **dict.fromkeys(("mnli", "qnli", "qqp"), (None, False)),
    }
    assert "starts from MNLI; ours starts from the encoder" in str(paper["rte"].note)


@pytest.mark.parametrize("model", ["base", "large"])
def test_full_fine_tuning_of_table_2_does_not_start_from_mnli(
    out: dict[str, Out], model: str
) -> None:
    """Ours does on MRPC, RTE and STS-B, so that these and the average are unlike."""
    rows = out[f"hu_table2_roberta_{model}"].rows
    own = [row for row in rows if row.method == "full_ft"]
    assert all(row.difference is not None for row in own)
    unlike = [row.task or row.metric for row in own if not row.like]
    assert unlike == ["mrpc", "rte", "stsb", "average"]
    # LoRA starts as the paper does; the restricted setup starts from the encoder.
    restricted = [row for row in rows if row.method == "lora" and "restricted" in str(row.note)]
    lora = [row for row in rows if row.method == "lora" and row not in restricted]
    assert all(row.like for row in lora)
    also = [row.task or row.metric for row in restricted if not row.like]
    assert also == (unlike if model == "large" else [])


# Epochs, batch size and learning rate of LoRA and of full fine-tuning, as Chu's Table 2 (but for
# QQP's batch, of which the study's file tells) and Tiny's Table 7 print them.
PRINTED: dict[tuple[str, str], dict[str, tuple[int, int, float]]] = {
    ("chu_table1", "lora"): {"sst2": (3, 16, 5e-4), "qqp": (3, 4, 5e-4), "mrpc": (3, 16, 4e-4)},
    ("tiny_table2", "lora"): {
        **{"sst2": (60, 16, 5e-4), "mrpc": (30, 16, 4e-4), "cola": (80, 32, 4e-4)},
        **{"rte": (80, 32, 5e-4), "stsb": (40, 16, 4e-4)},
    },
    ("tiny_table2", "full_ft"): {
        **{"sst2": (5, 16, 2e-5), "mrpc": (5, 16, 3e-5), "cola": (10, 32, 3e-5)},
        **{"rte": (10, 32, 3e-5), "stsb": (10, 16, 3e-5)},
    },
}


@pytest.mark.parametrize(("name", "method"), PRINTED)
def test_printed_hyperparameters_are_a_studys_and_on_its_page(
    out: dict[str, Out], name: str, method: str
) -> None:
    study, shown = out[name].params, [line.strip() for line in parameters(out[name].study.params)]
    for task, printed in PRINTED[name, method].items():
        found = study.hyperparameters(method, study.tasks[task])
        assert (found.epochs, found.batch_size, found.learning_rate) == printed
        assert f"learning_rate: {found.learning_rate}" in shown
    settings = study.lora.r, study.lora.alpha, study.lora.targets, study.model.max_length
    chu, tiny = (8, 16, ["query", "value"], 128), (8, 8, ["query", "value"], 512)
    assert settings == (chu if name == "chu_table1" else tiny)


def variations(study: StudyInfo) -> Iterator[StudyInfo]:
    """Yield the study, and the study with another start, model, size, or a method less."""
    yield study
    starts = tuple(task.name for task in study.tasks[:1])
    for mode, task in (("none", "mnli"), ("per_method", "mnli"), ("full_ft", "nli")):
        yield replace(study, mnli_init=InitInfo(mode, task, starts))
    yield replace(study, model=ModelInfo("minilm", None, 64))
    yield replace(study, sweep=replace(study.sweep, ranks=(), weights=()))
    for method in study.methods:
        yield replace(study, methods=tuple(m for m in study.methods if m != method))
        if method.rank:
            smaller = replace(method, settings=method.settings | {"r": 1, "targets": ("key",)})
            yield replace(study, methods=(smaller,))


def reasons(study: StudyInfo, row: PublishedRow, results: Results) -> dict[str, bool]:
    """Return the reasons that a row may have for no counterpart, and whether each is true."""
    scored = {(cell.method, cell.task) for cell in results.statistics.cells}
    sweep, profile = study.sweep, results.profile
    asked = set(row.weights) in map(set, sweep.weights) and row.rank in (None, *sweep.ranks)
    measured = bool(profile and profile.tasks) and row.method in study.labels
    eight = {"mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb"}
    lacking = {task for task in eight if (row.method, task) not in scored}
    return {
        "no method of this project": row.method not in METHODS,
        "not part of this study": row.method not in study.labels,
        "not a task of this study": row.task not in study.main_metrics,
        "the sweep does not have these weights at this rank": not asked,
        f"the sweep is of {sweep.task}": row.task != sweep.task,
        "this cell of the sweep has no results": not results.sweep,
        "this cell has no results": (row.method, row.task) not in scored,
        "no score on": row.metric == "average" and bool(lacking),
        "this study has no results of it": not results.cells,
        "ours is measured one by one, and of the whole validation set": "batch" in row.metric,
        EXPENSIVE: not profile or not profile.on(row.task or "") or row.method not in study.labels,
        "not measured": not measured or "full_ft" not in study.labels,
        "no equal score was computed": results.iso_accuracy is None,
        "ours has no coefficient of variation": not results.stability,
        "not both it and full fine-tuning have results": "full_ft" not in study.labels
        or not scored,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_named_row_has_ours_or_a_true_reason(out: dict[str, Out], name: str) -> None:
    for study in variations(out[name].study):
        for results in (made_up.whole(study), builders.results(study)):
            rows = published(results)
            assert (rows == []) == (not study.published)
            for row in rows:
                if row.ours is None:
                    assert (row.difference, row.like) == (None, False)
                    last = re.split("; ", str(row.note))[-1]
                    true = reasons(study, row, results)
                    assert any(true[why] for why in true if last.startswith(why)), (row, study)
                else:
                    assert row.difference == row.ours - row.published
                    assert row.like or row.note, row
            page: dict[str, list[Any]] = tables(results, rows)
            shown = [found for found in page["published"] for _ in found.rows]
            assert len(shown) == len(rows)
            papers_tables(results, rows)
