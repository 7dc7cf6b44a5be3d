"""Figures of tuning, from made-up results."""

from dataclasses import replace
from itertools import product
from typing import Any

import builders
import made_up_tuning as made_up
from peft_study.findings.figures import figures
from peft_study.findings.figures.figure import Figure, render_svg, specification
from peft_study.findings.results import Results
from peft_study.findings.tuning import expected_best, tuning
from peft_study.records.tuning import Trial, TrialRuns


def drawn(results: Results) -> dict[str, Figure]:
    return {of.name: of for of in figures(results, []) if of.name in ("tuning", "trials")}


def test_rows_are_the_trials() -> None:
    results = made_up.results()
    figure = drawn(results)["tuning"]
    assert results.tuning
    first = results.tuning.cells[0]
    rows = [row for row in figure.rows if (row["method"], row["task"]) == ("lora", "film")]
    assert [row["value"] for row in rows] == [*made_up.RATES]
    for field in ("n", "mean", "low", "high", "reported", "learned"):
        assert [row[field] for row in rows] == [getattr(of.scored, field) for of in first.trials]
    assert [row["chosen"] for row in rows] == [False, False, True]
    # The trial that failed has a row, and no mark.
    failed = [row for row in figure.rows if row["failed"]]
    assert [(row["mean"], row["drawn"]) for row in failed] == [(None, False)]
    assert len(figure.panels) == 2
    assert "n = 2 seeds" in figure.caption
    assert "Of 1 of 4 lines the first or the last value was chosen" in figure.caption
    assert "Trials with a failed seed, which cannot be chosen: 1." in figure.caption
    assert figure.alt.startswith("Mean scores × 100 of the chosen trials by task: film 81.0 (Full")
    spec = str(specification(figure))
    assert "'type': 'log'" in spec
    assert "'title': 'learning rate'" in spec


def test_expected_scores_are_drawn_by_the_number_of_trials() -> None:
    figure = drawn(made_up.results())["trials"]
    rows = [row for row in figure.rows if (row["method"], row["task"]) == ("lora", "film")]
    assert [row["trials"] for row in rows] == [1, 2, 3]
    assert [row["value"] for row in rows] == expected_best([0.71, 0.75, 0.80])
    assert "Dodge et al. 2019" in figure.caption
    assert "n = 2 seeds" in figure.caption


def test_svgs_fit_the_page() -> None:
    for figure in drawn(made_up.results()).values():
        svg = render_svg(figure)
        assert float(svg.split('width="')[1].split('"')[0]) <= 680
        assert "LoRA (ours)" in svg


def grid(rates: tuple[float, ...], alphas: tuple[float, ...], rate: str) -> Results:
    """Return results of a grid of two hyperparameters, its scores rising from trial to trial."""
    trials, cells = [], {}
    for at, values in enumerate(product(alphas, rates)):
        place = str(at)
        trials.append(Trial("lora", "film", dict(zip(("alpha", rate), values, strict=True)), place))
        about: dict[str, Any] = {"data": {"validation": made_up.CHOOSING}, "variant": place}
        scores = (0.7 + at / 100, 0.71 + at / 100)
        cells[place] = made_up.cell(("lora", "film"), scores, 80, **about)
    runs = TrialRuns(tuple(trials), cells)
    found = tuning(made_up.study(), runs, made_up.tuned(), {}, made_up.values, made_up.values)
    return builders.results(made_up.study(), tuning=found)


def test_of_a_grid_the_best_at_each_learning_rate_is_drawn() -> None:
    figure = drawn(grid((0.001, 0.002), (8, 16, 32), "learning_rate"))["tuning"]
    assert [row["value"] for row in figure.rows] == [0.001, 0.002] * 3
    assert [row["drawn"] for row in figure.rows] == [False] * 4 + [True] * 2
    assert [row["of alpha"] for row in figure.rows if row["chosen"]] == [32]
    assert "the best at each value is shown" in figure.caption


def test_without_a_learning_rate_the_first_hyperparameter_is_drawn() -> None:
    figure = drawn(grid((0.0, 0.1), (8, 16), "warmup_ratio"))["tuning"]
    assert figure.title == "Score against alpha"
    assert [row["value"] for row in figure.rows] == [8, 8, 16, 16]


def test_zero_stands_on_no_logarithmic_axis() -> None:
    results = grid((0.0, 0.1), (8,), "learning_rate")
    assert "'type': 'log'" not in str(specification(drawn(results)["tuning"]))


def test_without_tuning_there_are_no_figures_of_it() -> None:
    assert drawn(replace(made_up.results(), tuning=None)) == {}
