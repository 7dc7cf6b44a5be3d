"""Statistics beside scipy, and beside cases computed by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import builders
import many_methods
from conftest import ROOT
from peft_study.data.tasks import TASKS
from peft_study.errors import StudyError
from peft_study.files import read_record
from peft_study.findings import comparisons, statistics
from peft_study.findings.chance import Values
from peft_study.findings.comparisons import holm, paired
from peft_study.findings.page.words import conclusion
from peft_study.findings.results import load_values
from peft_study.records.scores import (
    Cell,
    CellStatistics,
    Counts,
    Evaluation,
    Gap,
    Rows,
    RunScores,
    Unlearned,
)
from peft_study.records.study import MethodInfo, Report


def cell(
    best: list[float], last: list[float] | None = None, first: list[float] | None = None
) -> Cell:
    """Return scores of as many seeds."""
    about: dict[str, Any] = {"baseline": {"accuracy": 0.5, "f1": 0.0}}
    about["trainable"] = Counts(294_912, 592_130, 887_042)
    return builders.cell("lora", "rte", *best, first=first or best, last=last or best, **about)


# Three seeds' first, best and last evaluations.
MIXED = cell(first=[0.75, 0.75, 0.5], best=[0.75, 1.0, 0.5], last=[0.5, 1.0, 0.0])


def described(found: Cell, **values: Any) -> list[CellStatistics]:
    return list(statistics.describe(found, values or builders.values(found)))


def test_a_cell_is_described_at_every_evaluation_and_has_an_interval_where_no_row_chose() -> None:
    found = cell([0.5, 0.6, 0.7], [0.5, 0.5, 0.65], [0.4, 0.4, 0.4])
    first, best, last, fitted = described(found)
    names = [row.evaluation for row in (first, best, last, fitted)]
    assert names == ["first", "best", "last", "cross_fitted"]
    assert vars(best) == pytest.approx(
        {"task": "rte", "method": "lora", "metric": "accuracy", "evaluation": "best", "n": 3}
        | {"median": 0.6, "std": 0.1, "mean": 0.6, "cv": 1 / 6, "min": 0.5, "max": 0.7}
        | dict.fromkeys(("low", "high", "chance"))
    )
    assert (first.median, last.median) == (0.4, 0.5)
    assert last.mean == pytest.approx(0.55)
    assert fitted.low is not None
    assert fitted.high is not None
    assert fitted.low < 0.6 < fitted.high
    *_, last = described(replace(found, report="last"))
    assert last.evaluation == "last"
    assert last.low is not None
    # One seed has no spread.
    *_, row = described(cell([0.5]))
    assert (row.std, row.cv, row.low, row.high) == (None,) * 4


def test_a_coefficient_of_variation_needs_a_mean_that_is_clearly_above_zero() -> None:
    assert statistics.spread([-0.1, 0.05])[2] is None
    assert statistics.spread([0.05, 0.30, -0.1, 0.2, 0.15])[2] is None
    assert statistics.spread([0.70, 0.71, 0.72])[2] == pytest.approx(0.01 / 0.71)


def test_what_has_not_learned_is_named_and_decides_nothing() -> None:
    rows = np.tile([0.0, 1.0], 200) - 0.5
    low, high = cell([0.52, 0.51, 0.53]), cell([0.70, 0.71, 0.69])
    slow = {seed: replace(run, learned=False) for seed, run in low.seeds.items()}
    low = replace(low, method="full_ft", seeds=slow)
    study = builders.study(("lora", "full_ft"), {"rte": "accuracy"})

    def values(of: Cell) -> dict[str, Values]:
        scores = np.array(list(of.scores("accuracy").values()))
        return {"accuracy": scores[:, None] + rows}

    cells = {("lora", "rte"): high, ("full_ft", "rte"): low}
    found = statistics.summarise(study, cells, [], [], values)
    assert found.unlearned == (Unlearned("full_ft", "rte", ("1", "2", "3"), whole=True),)
    assert all(row.unlearned == ("full_ft",) for row in found.differences)
    # A single run of a cell that has learned is named too, but does not silence it.
    one = replace(high, seeds=high.seeds | {"2": replace(high.seeds["2"], learned=False)})
    found = statistics.summarise(study, {("lora", "rte"): one}, [], [], values)
    assert found.unlearned == (Unlearned("lora", "rte", ("2",), whole=False),)


@pytest.mark.parametrize(("report", "median", "std"), [("best", 0.75, 0.25), ("last", 0.5, 0.5)])
def test_the_summary_is_median_and_sample_deviation_and_nothing_else(
    report: Report, median: float, std: float
) -> None:
    study = builders.study(("lora",), {"rte": "accuracy"}, report=report)
    found = statistics.summarise(study, {("lora", "rte"): MIXED}, [], [], builders.values)
    expected = {"median": median, "std": pytest.approx(std)}
    assert statistics.summary(study, found) == {"rte": {"lora": expected}}
    first, last = (row for row in found.cells if row.evaluation in ("first", "last"))
    # Whichever is reported; three seeds between 0 and 1 have no mean clearly above zero.
    assert (first.cv, last.cv) == (pytest.approx(0.2165064), None)
    assert found.baselines == {"rte": {"accuracy": 0.5, "f1": 0.0}}


def test_the_summary_of_one_seed_and_of_a_gap() -> None:
    study = builders.study(("lora", "full_ft"), {"rte": "accuracy", "mrpc": "f1"})
    gaps = [Gap("full_ft", "rte", "no results")]
    found = statistics.summarise(study, {("lora", "rte"): cell([0.75])}, gaps, [], builders.values)
    assert statistics.summary(study, found) == {
        "rte": {"lora": {"median": 0.75, "std": None}},
        "mrpc": {},
    }
    assert found.gaps == tuple(gaps)


def with_f1(found: Evaluation) -> Evaluation:
    return Evaluation(8, 1.0, found.scores | {"f1": 0.5})


def test_sweep_is_a_row_per_cell_and_metric() -> None:
    both = {
        seed: RunScores(with_f1(run.first), with_f1(run.best), with_f1(run.last), None, True)
        for seed, run in MIXED.seeds.items()
    }
    narrow = replace(MIXED, seeds=both, weights=("query",), rank=1, report="last")
    wide = replace(narrow, weights=("query", "value"), rank=64)
    rows = list(statistics.sweep_rows([narrow, wide, replace(cell([0.75]), rank=8)]))
    assert [(row.weights, row.rank, row.metric) for row in rows[:4]] == [
        (("query",), 1, "accuracy"),
        (("query",), 1, "f1"),
        (("query", "value"), 64, "accuracy"),
        (("query", "value"), 64, "f1"),
    ]
    assert vars(rows[2]) | {"weights": ""} == pytest.approx(
        {"task": "rte", "weights": "", "rank": 64, "metric": "accuracy", "n": 3}
        | {"median": 0.5, "std": 0.5, "judged": 0.5, "cv_first": 0.2165064, "cv_last": None}
        | {"trainable_adapter": 294_912, "trainable_head": 592_130, "trainable_total": 887_042}
    )
    alone = rows[4]
    assert (alone.n, alone.std, alone.cv_first, alone.cv_last) == (1, None, None, None)


def by_seeds(*differences: float) -> Values:
    """Return differences of seeds alone, without rows."""
    return np.array(differences)[:, None]


def test_a_difference_by_hand() -> None:
    """Differences of 1, 2 and 3 hundredths: mean 2, std 1, error 1 / sqrt 3, t(2) = 4.3027."""
    found = comparisons.tested(by_seeds(0.01, 0.02, 0.03), 0.02)
    reach = 4.302653 * 0.01 / math.sqrt(3)
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-7)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt 3
    assert found.p_equivalence == pytest.approx(0.5)  # the mean is the margin


def test_without_rows_a_difference_is_scipys_paired_test() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        ours, theirs = rng.normal(0.80, 0.01, 5), rng.normal(0.80, 0.01, 5)
        found = comparisons.tested(by_seeds(*(ours - theirs)), 0.02)
        expected = stats.ttest_rel(ours, theirs)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
        interval = expected.confidence_interval(0.90)
        assert found.p_equivalence is not None
        equivalent = interval.low > -0.02 and interval.high < 0.02
        assert (found.p_equivalence < 0.05) == equivalent


def test_differences_are_paired_by_seed_and_refuse_other_rows() -> None:
    ours, theirs = cell([0.5, 0.7, 0.9]), cell([0.9, 0.7])
    theirs = replace(theirs, seeds={"3": theirs.seeds["1"], "2": theirs.seeds["2"]})
    first, second = ((of, builders.values(of)["accuracy"]) for of in (ours, theirs))
    found = paired(first, second, 0.02)
    assert (found.n, found.mean, found.p, found.p_equivalence) == (2, 0.0, None, 0.0)
    alone = comparisons.tested(by_seeds(0.1), 0.02)
    assert (alone.mean, alone.low, alone.p) == (0.1, None, None)
    other = replace(theirs, data={"validation": Rows(400, "others")})
    with pytest.raises(StudyError, match="other held-out rows of rte; run 'dvc repro'"):
        paired(first, (other, second[1]), 0.02)


def test_the_baseline_is_that_of_the_main_metric() -> None:
    """Files are sorted by key: of CoLA's metrics, accuracy stands before Matthews' correlation."""
    found = cell([0.30, 0.31, 0.32])
    both = {
        seed: replace(run, best=Evaluation(8, 1.0, {"accuracy": 0.72} | run.best.scores))
        for seed, run in found.seeds.items()
    }
    found = replace(found, seeds=both, baseline={"accuracy": 0.69, "matthews": 0.0})
    rows = builders.values(cell([0.30, 0.31, 0.32]))["accuracy"]
    assert statistics.not_learned(found, "matthews", rows) == []
    (row,) = statistics.not_learned(found, "accuracy", rows)
    assert row.whole


def test_methods_that_compute_the_same_do_not_count_twice() -> None:
    methods = ("lora", "peft_lora", "adapter_h", "full_ft")
    cells = {(method, "rte"): cell([0.5, 0.6]) for method in methods}
    cells = {key: replace(of, method=key[0]) for key, of in cells.items()}
    study = builders.study(methods, {"rte": "accuracy"})
    rows = statistics.summarise(study, cells, [], [], builders.values).differences
    assert {(row.family, row.method, row.reference) for row in rows} == {
        ("lora_full", "lora", "full_ft"),
        ("pairs", "lora", "adapter_h"),
        ("pairs", "lora", "full_ft"),
        ("pairs", "adapter_h", "full_ft"),
        ("implementations", "lora", "peft_lora"),
    }
    assert {row.evaluation for row in rows} == {"cross_fitted"}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_planted_effects_of_no_and_one_point_are_equivalent() -> None:
    """Of a copy of the committed rows, a share of one method's answers is made wrong."""
    assert planted(0) == [("equivalent", (0.0, 0.0))] * 2
    for verdict, (low, high) in planted(1):
        assert verdict == "equivalent"
        assert -0.02 < low < -0.01 < high < 0.0  # though not zero


def test_a_planted_effect_of_three_points_is_seen() -> None:
    found = planted(3)
    assert all(verdict == "worse" for verdict, _ in found)
    assert all(low < -0.029 and high < -0.02 for _, (low, high) in found)


def planted(lost: int) -> list[tuple[str, tuple[float, float]]]:
    """Judge our LoRA with `lost` points of wrong answers against itself, on committed rows."""
    study = committed_tasks()
    found = []
    for task, metric in study.items():
        if metric != "accuracy":
            continue
        before = read_record(ROOT / f"metrics/runs/lora/{task}.json", Cell)
        table = load_values(before, ROOT / "metrics")
        right = table[metric]
        wrong, rng = right.copy(), np.random.default_rng(0)
        # The same number of right answers of every seed; each seed has its own.
        for row in wrong:
            right_ones = np.flatnonzero(row > 0.99)
            row[rng.choice(right_ones, round(lost / 100 * len(row)), replace=False)] -= 1.0
        about = builders.study(("lora", "full_ft"), {task: metric})
        pair = {"lora": wrong, "full_ft": right}
        cells = {(name, task): replace(before, method=name) for name in pair}

        def values(of: Cell, pair: dict[str, Values] = pair) -> dict[str, Values]:
            return dict.fromkeys(of.metrics, pair[of.method])

        result = statistics.summarise(about, cells, [], [], values)
        (row,) = (r for r in result.differences if r.family == "lora_full" and r.metric == metric)
        assert row.low is not None
        assert row.high is not None
        found.append((conclusion(row, about)[0], (row.low, row.high)))
    return found


def committed_tasks() -> dict[str, str]:
    """Return the main metric of each task that has committed rows."""
    tasks = sorted(path.stem for path in (ROOT / "metrics/rows/lora").glob("*.parquet"))
    return {task: TASKS[task].metrics[0] for task in tasks}


def test_nothing_is_averaged_over_a_gap() -> None:
    study = builders.study(("lora", "full_ft"), {"rte": "accuracy", "mrpc": "accuracy"})
    cells = {("lora", "rte"): cell([0.5, 0.6, 0.7]), ("lora", "mrpc"): cell([0.8, 0.9, 0.9])}
    cells |= {("full_ft", "rte"): cell([0.5, 0.6, 0.7])}
    rows = {row.method: row for row in statistics.averages(cells, study)}
    assert rows["lora"].mean_of_medians == pytest.approx(0.75)
    assert rows["full_ft"].mean_of_medians is None
    assert rows["full_ft"].gaps == ("mrpc",)


def of_kind(name: str, kind: str) -> MethodInfo:
    return MethodInfo(name, name, "lora", name, 9, False, {}, kind=kind)


def test_many_methods_are_compared_with_full_fine_tuning_and_lora_alone() -> None:
    others = [of_kind(f"recipe_{number}", "peft_tuner") for number in range(5)]
    study = builders.study(("lora", "peft_lora", "full_ft"))
    few = replace(study, methods=(*study.methods, *others[:4]))
    asked = [(a.name, b.name) for of, a, b in comparisons.pairs(few) if of == "pairs"]
    assert len(asked) == 15
    many = replace(study, methods=(*study.methods, *others))
    asked = [(a.name, b.name) for of, a, b in comparisons.pairs(many) if of == "pairs"]
    # Five with either, and LoRA with full fine-tuning; PEFT's LoRA computes what ours does.
    assert len(asked) == len(set(asked)) == 11
    assert {reference for _, reference in asked} == {"lora", "full_ft"}
    without = replace(many, methods=(*others, of_kind("a", "bitfit"), of_kind("b", "x")))
    asked = [(a.name, b.name) for of, a, b in comparisons.pairs(without) if of == "pairs"]
    assert {reference for _, reference in asked} == {"recipe_0"}


def test_questions_find_lora_and_full_fine_tuning_by_what_they_are() -> None:
    mine, full = of_kind("mine", "lora"), of_kind("everything", "full_ft")
    study = replace(builders.study(), methods=(of_kind("dora", "peft_tuner"), mine, full))
    families = {of: (a.name, b.name) for of, a, b in comparisons.pairs(study) if of != "pairs"}
    assert families == {"lora_full": ("mine", "everything")}
    # The built-in goes first.
    both = replace(study, methods=(*builders.study(("lora",)).methods, *study.methods))
    assert both.lora == both.methods[0]


def test_all_pairs_are_compared_by_the_mean_over_tasks() -> None:
    found = many_methods.results().statistics
    assert len(found.over_tasks) == 66
    by_pair = {(of.method, of.reference): of for of in found.over_tasks}
    row = by_pair["lora", "full_ft"]
    of_tasks = [d for d in found.differences if d.family == "lora_full"]
    assert len(of_tasks) == 8
    assert row.mean == pytest.approx(sum(d.mean or 0.0 for d in of_tasks) / 8)
    # Eight tasks tell more than one does.
    assert row.high - row.low < min((d.high or 1.0) - (d.low or 0.0) for d in of_tasks)
    assert by_pair["lora", "prefix"].differs
    slow = many_methods.results(slow=("ia3",)).statistics
    assert [of.unlearned for of in slow.over_tasks if "ia3" in (of.method, of.reference)] == [
        ("ia3",)
    ] * 11


def test_a_difference_the_other_way_round() -> None:
    row = builders.difference("film", -0.03, 0.01)
    back = row.reversed()
    assert (back.method, back.reference) == ("full_ft", "lora")
    assert (back.low, back.high) == (-0.01, 0.03)
    assert back.mean == pytest.approx(0.01)
    assert back.reversed() == row
    results = builders.results(statistics=builders.statistics(differences=(row,)))
    assert results.main_differences_of("full_ft", "lora") == [back]
