"""Tuning: who wins, what the winner is expected to score and changes, and what choosing costs."""

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builders
import made_up_tuning as made_up
from peft_study.errors import StudyError
from peft_study.files import read_record, write_json
from peft_study.findings import chance
from peft_study.findings.chance import Values
from peft_study.findings.choosing import choose
from peft_study.findings.comparisons import holm, paired
from peft_study.findings.results import (
    load_trial_values,
    load_trials,
    load_untuned,
    load_values,
)
from peft_study.findings.rows import write_rows
from peft_study.findings.tuning import (
    UNCHANGED,
    edges_of,
    expected_best,
    for_all_tasks,
    tuning,
)
from peft_study.records.scores import Cell, Difference, Rows
from peft_study.records.tuning import ForAllTasks, Trial, TrialRuns, TunedCell, Tuning
from peft_study.records.variants import VariantRuns


def found() -> Tuning:
    tuned = made_up.results().tuning
    assert tuned
    return tuned


def by_cell(of: Tuning) -> dict[tuple[str, str], TunedCell]:
    return {(cell.method, cell.task): cell for cell in of.cells}


def trials(**scores: tuple[float, ...]) -> tuple[list[Trial], dict[str, Cell]]:
    """Return trials of LoRA on film by place, each with its scores."""
    rates = {place: {"learning_rate": 0.001 * 2**at} for at, place in enumerate(scores)}
    cells = {place: builders.cell("lora", "film", *of) for place, of in scores.items()}
    return [Trial("lora", "film", rates[place], place) for place in scores], cells


def test_the_highest_mean_wins_and_of_equals_the_first() -> None:
    # The highest single score loses, and so does what comes later with the same mean.
    found, cells = trials(low=(0.9, 0.5), first=(0.75, 0.85), equal=(0.85, 0.75), none=(0.7, 0.7))
    assert choose(found, cells, "accuracy").place == "first"
    assert choose(found[::-1], cells, "accuracy").place == "equal"


def test_what_runs_report_decides_by_the_main_metric() -> None:
    found, cells = trials(a=(0.8, 0.8), b=(0.7, 0.7))
    last = {
        place: replace(
            cell,
            report="last",
            seeds={
                seed: replace(run, last=replace(run.last, scores={"accuracy": of, "f1": 1 - of}))
                for seed, run in cell.seeds.items()
            },
        )
        for (place, cell), of in zip(cells.items(), (0.6, 0.65), strict=True)
    }
    assert choose(found, cells, "accuracy").place == "a"
    assert choose(found, last, "accuracy").place == "b"
    assert choose(found, last, "f1").place == "a"


def test_a_trial_with_a_failed_seed_cannot_win() -> None:
    found, cells = trials(best=(0.9,), second=(0.7, 0.7), missing=(1.0, 1.0))
    cells["best"] = replace(cells["best"], failed={"2": made_up.NO_SCORE})
    del cells["missing"]
    assert choose(found, cells, "accuracy").place == "second"


def test_without_any_result_one_line_says_what_to_do() -> None:
    found, cells = trials(a=(0.7,), b=())
    cells = {place: replace(of, failed={"2": made_up.NO_SCORE}) for place, of in cells.items()}
    with pytest.raises(StudyError) as error:
        choose(found, cells, "accuracy")
    assert str(error.value) == (
        "tune: none of the 2 trial(s) of lora on film has a result for all of its seeds; the first "
        "failure: the loss is nan after step 12; list other values below 'tune' in params.yaml, "
        "such as lower learning rates"
    )


def test_one_choice_for_all_tasks_is_the_lowest_within_a_standard_error_of_the_best() -> None:
    study, rng = builders.study(("lora",), {"film": "accuracy"}), np.random.default_rng(0)
    listed, cells = trials(**dict.fromkeys(("low", "near", "best", "high"), (0.7, 0.7)))
    error = 0.02
    below = {"low": 1.5, "near": 0.9, "best": 0.0, "high": 0.1}  # standard errors
    noise = rng.standard_normal((2, 400))
    noise = (noise - noise.mean()) / chance.error(chance.two_way(noise - noise.mean())) * error
    values = {place: {"accuracy": 0.7 - of * error + noise} for place, of in below.items()}
    cells = {place: replace(cell, variant=place) for place, cell in cells.items()}

    def chosen(listed: list[Trial]) -> list[ForAllTasks]:
        of = {("lora", "film"): listed}
        return list(for_all_tasks(study, of, cells, lambda cell: values[cell.variant]))

    (found,) = chosen(listed)
    assert (found.best, found.values) == (listed[2].values, listed[1].values)
    assert (found.best_mean, found.error) == (pytest.approx(0.7), pytest.approx(error))
    assert found.mean == pytest.approx(0.7 - 0.9 * error)
    # The order of the list is no matter, and what failed is left out.
    assert chosen(listed[::-1]) == [found]
    cells["near"] = replace(cells["near"], failed={"3": made_up.NO_SCORE})
    assert chosen(listed)[0].values == listed[2].values
    # A method that lacks a task has no choice for all.
    two = builders.study(("lora",), {"film": "accuracy", "rating": "pearson"})
    assert not [*for_all_tasks(two, {("lora", "film"): listed}, cells, lambda _: values["low"])]


def test_to_choose_imports_neither_tables_nor_charts() -> None:
    heavy = "{'pandas', 'altair', 'numpy', 'scipy', 'pyarrow', 'torch'}"
    code = "import sys, peft_study.findings.choosing; "
    code += f"print(sorted({heavy} & {{*sys.modules}}))"
    path = {"PYTHONPATH": "src"}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path
    )
    assert printed.stdout.strip() == "[]"


def test_the_expected_best_is_the_mean_over_all_draws_with_replacement() -> None:
    scores = [0.7, 0.5, 0.9, 0.7]
    by_hand = [np.mean([max(drawn) for drawn in product(scores, repeat=n)]) for n in range(1, 5)]
    assert expected_best(scores) == pytest.approx(by_hand)
    assert expected_best([0.6]) == [0.6]


def test_edges_are_of_lists_of_numbers() -> None:
    names = ("learning_rate", "alpha", "dropout")
    grid = product((1e-3, 2e-3, 4e-3), (8, 16), (0,))
    listed = [dict(zip(names, of, strict=True)) for of in grid]
    found = [Trial("lora", "film", dict(values), str(at)) for at, values in enumerate(listed)]
    middle = {"learning_rate": 2e-3, "alpha": 16, "dropout": 0}
    assert edges_of(found, middle) == {"alpha": "highest"}
    edge = {"learning_rate": 1e-3, "alpha": 8, "dropout": 0}
    assert edges_of(found, edge) == {"learning_rate": "lowest", "alpha": "lowest"}
    words = [replace(of, values={"schedule": at}) for of, at in zip(found, "ab", strict=False)]  # type: ignore[dict-item]
    assert edges_of(words, words[0].values) == {}


def test_what_was_chosen_and_what_it_changed() -> None:
    cells = by_cell(found())
    assert list(cells) == list(made_up.TRIALS)
    lora = cells["lora", "film"]
    assert (lora.chosen, lora.edges) == ({"learning_rate": 0.004}, {"learning_rate": "highest"})
    assert [of.values["learning_rate"] for of in lora.trials] == [*made_up.RATES]
    assert [of.scored.reported for of in lora.trials] == pytest.approx([0.71, 0.75, 0.80])
    assert lora.expected == pytest.approx(expected_best([0.71, 0.75, 0.80]))
    assert lora.tuned
    assert lora.untuned
    assert (lora.tuned.mean, lora.untuned.mean) == pytest.approx((0.805, 0.725))
    # The study's own interval.
    of = chance.two_way(made_up.values(made_up.tuned()["lora", "film"])["accuracy"])
    assert lora.tuned.high == pytest.approx(of.mean + chance.reach(of))
    assert lora.difference
    assert lora.difference.mean == pytest.approx(0.08)
    assert lora.difference.differs
    # What the study had is not trained again, and not compared with itself.
    same = cells["full_ft", "film"]
    assert (same.untuned, same.difference, same.without) == (None, None, UNCHANGED)
    assert same.edges == {}


def test_differences_are_paired_and_corrected_over_all_cells() -> None:
    cells, tuned, untuned = by_cell(found()), made_up.tuned(), made_up.untuned()
    asked = [of.difference for of in cells.values() if of.difference]
    expected = {}
    for of, before in untuned.items():
        both = [
            (cell, made_up.values(cell)[made_up.METRICS[of[1]]]) for cell in (tuned[of], before)
        ]
        expected[of] = paired(both[0], both[1], 0.02)
    assert {(of.method, of.task) for of in asked} == set(expected)
    assert [of.p for of in asked] == [expected[of.method, of.task].p for of in asked]
    assert [of.p_holm for of in asked] == holm([of.p or 0.0 for of in asked])
    assert {(of.family, of.method == of.reference) for of in asked} == {("tuned", True)}


def test_a_failed_trial_is_a_trial() -> None:
    rating = by_cell(found())["lora", "rating"]
    *_, failed = rating.trials
    assert (failed.scored.n, failed.scored.mean, failed.scored.learned) == (0, None, False)
    assert failed.scored.failed == ("101", "102")
    # It finds the baseline, 0.5.
    assert rating.expected == pytest.approx(expected_best([0.80, 0.85, 0.5]))
    # Half of it has a score, which is shown, and wins nothing.
    runs = made_up.runs()
    place = runs.trials[2].place
    of = runs.cells[place]
    half = replace(of, seeds={"101": of.seeds["1"]}, failed={"102": "out of memory"})
    runs = replace(runs, cells=runs.cells | {place: half})
    again = tuning(made_up.study(), runs, made_up.tuned(), {}, made_up.values, made_up.values)
    film = by_cell(again)["lora", "film"]
    assert film.chosen == {"learning_rate": 0.002}
    assert film.trials[2].scored.n == 1
    assert film.trials[2].scored.low is None
    assert film.expected == pytest.approx(expected_best([0.71, 0.75, 0.5]))


def test_trials_tell_what_learned_and_have_intervals_of_their_rows() -> None:
    runs = made_up.runs()
    place = runs.trials[0].place
    runs.cells[place] = made_up.cell(
        ("lora", "film"), (0.5, 0.51), 80, data={"validation": made_up.CHOOSING}, variant=place
    )
    again = tuning(made_up.study(), runs, made_up.tuned(), {}, made_up.values, made_up.values)
    first, second, _ = by_cell(again)["lora", "film"].trials
    assert (first.scored.learned, second.scored.learned) == (False, True)
    of = chance.two_way(made_up.values(runs.cells[place])["accuracy"])
    assert of.rows == made_up.CHOOSING.rows
    assert first.scored.low == pytest.approx(of.mean - chance.reach(of))


def test_to_learn_by_being_tuned_is_a_change() -> None:
    def difference(tuned: float, untuned: float) -> Difference:
        of = ("lora", "film")
        cells = made_up.tuned() | {of: made_up.cell(of, (tuned, tuned + 0.01, tuned), 100)}
        before = made_up.cell(of, (untuned, untuned + 0.01, untuned), 100, variant="untuned/a")
        again = tuning(
            made_up.study(), made_up.runs(), cells, {of: before}, made_up.values, made_up.values
        )
        answer = by_cell(again)[of].difference
        assert answer
        return answer

    assert difference(0.8, 0.5).unlearned == ()
    assert difference(0.5, 0.5).unlearned == ("lora",)


@pytest.mark.parametrize("missing", ["tuned", "untuned"])
def test_a_missing_result_is_said_and_compared_with_nothing(missing: str) -> None:
    of, tuned, untuned = ("lora", "film"), made_up.tuned(), made_up.untuned()
    if missing == "tuned":
        del tuned[of]
    else:
        untuned[of] = made_up.cell(of, (), 100, variant="untuned/lora/film")
    again = tuning(made_up.study(), made_up.runs(), tuned, untuned, made_up.values, made_up.values)
    lora = by_cell(again)[of]
    assert (lora.difference, lora.without) == (None, f"the {missing} result is missing")
    film = [who.tuned for who in again.who if who.difference.task == "film"]
    kept = {"tuned": [("full_ft",), ()], "untuned": [("lora", "full_ft"), ("lora",)]}
    assert film == kept[missing]


def test_who_was_tuned_is_asked_in_four_ways() -> None:
    who = {(of.difference.task, of.tuned): of.difference for of in found().who}
    ways = [("lora", "full_ft"), ("lora",), ("full_ft",), ()]
    assert list(who) == [(task, way) for task in made_up.METRICS for way in ways]
    means = [who["rating", way].mean for way in ways]
    assert means == pytest.approx([-0.01, 0.01, -0.0096667, 0.0103333], abs=1e-6)
    # Full fine-tuning keeps what it had on film: to tune it changes nothing there.
    assert who["film", ways[0]] == who["film", ways[1]]
    assert who["film", ways[2]] == who["film", ways[3]]
    assert who["film", ways[0]].equivalent
    assert who["film", ways[3]].differs
    assert found().questions == 6
    # Two questions on film and four on rating are corrected together.
    distinct = list(dict.fromkeys(who.values()))
    assert len(distinct) == 6
    assert [of.p_holm for of in distinct] == holm([of.p or 0.0 for of in distinct])
    assert {of.method for of in distinct} == {"lora"}


def test_without_lora_or_full_fine_tuning_nobody_asks_who_was_tuned() -> None:
    study = replace(made_up.study(), methods=(builders.method("lora"),))
    again = tuning(
        study, made_up.runs(), made_up.tuned(), made_up.untuned(), made_up.values, made_up.values
    )
    assert (again.who, again.questions) == ((), 0)


def test_the_cost_is_counted_in_runs_and_steps() -> None:
    lora, full = found().costs
    # Three trials on two tasks with two seeds, of which one trial failed with both.
    assert (lora.runs, lora.failed, lora.steps) == (12, 2, 10 * 80)
    assert (full.runs, full.failed, full.steps) == (12, 0, 12 * 80)
    assert (lora.final_runs, lora.final_steps) == (6, 600)
    assert lora.ratio == pytest.approx(800 / 600)


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "tuning.json", found())
    assert read_record(tmp_path / "tuning.json", Tuning) == found()


def test_files_of_trials_and_of_untuned_cells_are_found(tmp_path: Path) -> None:
    assert load_trials(tmp_path) == TrialRuns()
    assert load_untuned(tmp_path) == {}
    runs, untuned = made_up.runs(), made_up.untuned()
    write_json(tmp_path / "runs/trials.json", runs)
    ledger = ("full_ft", "film")
    others = {"ledger/1": made_up.cell(ledger, (0.1, 0.2), 1, variant="ledger/1")}
    cells = {cell.variant: cell for cell in untuned.values()} | others
    write_json(tmp_path / "runs/variants.json", VariantRuns(cells))
    assert load_trials(tmp_path) == runs
    assert load_untuned(tmp_path) == untuned
    trial, cell = runs.cells[runs.trials[0].place], untuned["lora", "film"]
    for where, of, read in (
        ("trials", trial, load_trial_values),
        ("variants", cell, load_values),
    ):
        (tmp_path / f"rows/{where}/{of.variant}").parent.mkdir(parents=True)
        given = made_up.values(of)["accuracy"]
        columns = {("accuracy", seed): given[at] for at, seed in enumerate(of.seeds)}
        ids = [str(row) for row in range(given.shape[1])]
        write_rows(tmp_path / f"rows/{where}/{of.variant}.parquet", ids, columns)
        assert read(of, tmp_path)["accuracy"] == pytest.approx(given, abs=1e-6)


# A simulation: eight rates that are all equally good, so that choosing finds luck alone. A row is
# answered right where 0.84 + row + seed + rest > 0, all normal; trials and results have seeds of
# their own, and what a row is worth is the same for all.
SEED_VARIANCE, RATES, TRIALS = 0.02, 8, 120
TRUTH = 0.5 * math.erfc(-0.84 / math.sqrt(2 * (2 + SEED_VARIANCE)))


def answers(rng: np.random.Generator, seeds: int, rows: int, cells: int) -> list[Values]:
    """Return which rows the seeds of some cells answer right, each of shape (seeds, rows)."""
    row = rng.standard_normal(rows)
    found = []
    for _ in range(cells):
        seed = rng.standard_normal((seeds, 1)) * math.sqrt(SEED_VARIANCE)
        latent = 0.84 + row + seed + rng.standard_normal((seeds, rows))
        found.append((latent > 0).astype(np.float64))
    return found


def as_cell(right: Values, data: Rows, variant: str = "") -> Cell:
    scores = right.mean(axis=1).tolist()
    about: dict[str, Any] = {"data": {"validation": data}, "report": "last", "variant": variant}
    return builders.cell("lora", "film", *scores, last=scores, **about)


def simulate(rng: np.random.Generator, choosing_rows_are_reported: bool) -> TunedCell:
    """Tune once, as the study does or by the very runs that are reported."""
    study = made_up.study(report="last")
    reported = answers(rng, 5, 256, RATES)
    choosing = reported if choosing_rows_are_reported else answers(rng, 2, 128, RATES)
    places = [f"lora/film/{rate}" for rate in range(RATES)]
    cells = {
        place: as_cell(of, made_up.CHOOSING, place)
        for place, of in zip(places, choosing, strict=True)
    }
    listed = [
        Trial("lora", "film", {"learning_rate": rate}, place) for rate, place in enumerate(places)
    ]
    winner = places.index(choose(listed, cells, "accuracy").place)
    # The study's own rate is the first; where it wins there is nothing to compare.
    tuned = as_cell(reported[winner], made_up.HELD_OUT)
    untuned = as_cell(reported[0], made_up.HELD_OUT, "untuned/lora/film")
    values: Mapping[str, Values] = dict(zip(places, choosing, strict=True)) | {
        "": reported[winner],
        "untuned/lora/film": reported[0],
    }
    again = tuning(
        study,
        TrialRuns(tuple(listed), cells),
        {("lora", "film"): tuned},
        {("lora", "film"): untuned} if winner else {},
        lambda cell: {"accuracy": values[cell.variant]},
        lambda cell: {"accuracy": values[cell.variant]},
    )
    return again.cells[0]


def luck(choosing_rows_are_reported: bool) -> tuple[float, float, float]:
    """Return how often intervals of score and of difference hold the truth, and the mean gain."""
    rng = np.random.default_rng(7)
    found = [simulate(rng, choosing_rows_are_reported) for _ in range(TRIALS)]
    scores = [of.tuned for of in found if of.tuned]
    right = [of.low < TRUTH < of.high for of in scores if of.low and of.high]
    changes = [of.difference for of in found if of.difference]
    zero = [of.low < 0 < of.high for of in changes if of.low is not None and of.high is not None]
    gains = [of.mean for of in changes if of.mean is not None]
    assert len(right) == TRIALS
    assert len(gains) == len(zero) == len(changes) > TRIALS / 2
    return float(np.mean(right)), float(np.mean(zero)), float(np.mean(gains))


def test_choosing_leaves_the_intervals_of_what_is_reported_alone() -> None:
    score, difference, gain = luck(choosing_rows_are_reported=False)
    assert score > 0.92
    assert difference > 0.92
    assert abs(gain) < 0.008
    # Chosen by the rows and seeds that are reported, luck passes for a gain.
    score, difference, gain = luck(choosing_rows_are_reported=True)
    assert score < 0.88
    assert difference < 0.9
    assert gain > 0.02
