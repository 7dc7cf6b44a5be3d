"""The papers' tables from made-up results."""

from dataclasses import replace

import made_up
from peft_study.findings.page.papers import latex_tables, markdown_tables


def test_scores_in_the_papers_form() -> None:
    assert markdown_tables(made_up.results())["scores"].splitlines() == [
        "| Method | Trainable parameters (M) | film_review (accuracy) | rating (pearson) | Avg. |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| LoRA (ours) | 0.074 | 76.5 ± 1.0 | 83.0 ± 1.0 | 79.8 |",
        "| AdapterH | 0.15 | 74.0 ± 2.5 | – | – |",
        "| Full fine-tuning | 22.7 | 74.8 ± 2.2 | 86.5 ± 0.5 | 80.6 |",
    ]


def test_latex_has_rules_and_escapes() -> None:
    found = latex_tables(made_up.results())["scores"]
    assert found.startswith("\\begin{tabular}{lrrrr}\n\\toprule\n")
    assert found.endswith("\\bottomrule\n\\end{tabular}\n")
    assert "film\\_review (accuracy)" in found
    assert "LoRA (ours) & 0.074 & 76.5 $\\pm$ 1.0 & 83.0 $\\pm$ 1.0 & 79.8 \\\\" in found
    assert "AdapterH & 0.15 & 74.0 $\\pm$ 2.5 & -- & -- \\\\" in found


def test_a_sweep_is_weights_by_ranks() -> None:
    found = made_up.sweep()
    tables = markdown_tables(found)
    assert list(tables) == ["sweep"]
    assert tables["sweep"].splitlines() == [
        "| Weights: film_review (accuracy) | r = 1 | r = 8 |",
        "| --- | ---: | ---: |",
        "| query | 71.0 ± 1.2 | – |",
        "| query+value | 71.0 ± 1.2 | 78.0 ± 1.2 |",
    ]
    assert "$W_q, W_v$ & 71.0 $\\pm$ 1.2 & 78.0" in latex_tables(found)["sweep"]


def test_one_seed_has_no_spread_and_scores_may_be_negative() -> None:
    results = made_up.results()
    cells = [cell | {"std": None, "median": -0.031} for cell in results.statistics["cells"]]
    found = replace(results, statistics=results.statistics | {"cells": cells})
    assert "| LoRA (ours) | 0.074 | \N{MINUS SIGN}3.1 |" in markdown_tables(found)["scores"]
    assert "& $-$3.1 &" in latex_tables(found)["scores"]


def test_a_task_of_ones_own_may_have_any_name() -> None:
    results = made_up.results()
    study = results.study | {"main_metrics": {"a|b & 50%": "accuracy"}}
    found = replace(results, study=study)
    assert "| a\\|b & 50% (accuracy) |" in markdown_tables(found)["scores"]
    assert "a|b \\& 50\\% (accuracy)" in latex_tables(found)["scores"]
