"""The papers' tables from made-up results."""

from dataclasses import replace

import builders
import made_up
from peft_study.findings.page.papers import papers_tables, readme_table
from peft_study.findings.readme import shown_results
from peft_study.findings.results import Results


def test_scores_in_the_papers_form_and_as_latex_with_rules_and_escapes() -> None:
    tables = papers_tables(made_up.results(), [])
    assert tables["scores.md"].splitlines() == [
        "| Method | Trainable parameters (M) | film_review (accuracy) | rating (pearson) | Avg. |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| LoRA (ours) | 0.074 | 76.5 ± 1.0 (75.5) | 83.0 ± 1.0 (82.0) | 79.8 |",
        "| AdapterH | 0.15 | 74.0 ± 2.5 (73.0) | – | – |",
        "| Full fine-tuning | 22.7 | 74.8 ± 2.2 (73.8) | 86.5 ± 0.5 (85.5) | 80.6 |",
    ]
    found = tables["scores.tex"]
    assert found.startswith("\\begin{tabular}{lrrrr}\n\\toprule\n")
    assert found.endswith("\\bottomrule\n\\end{tabular}\n")
    assert "film\\_review (accuracy)" in found
    assert (
        "LoRA (ours) & 0.074 & 76.5 $\\pm$ 1.0 (75.5) & 83.0 $\\pm$ 1.0 (82.0) & 79.8 \\\\" in found
    )
    assert "AdapterH & 0.15 & 74.0 $\\pm$ 2.5 (73.0) & -- & -- \\\\" in found


def test_certificates_are_a_row_for_each_method_of_the_study() -> None:
    tables = papers_tables(made_up.results(), [])
    head, _, *rows = tables["certificates.md"].splitlines()
    assert head.startswith("| Method | Trained | Closed form | Start | Packed | Files | Library's")
    assert [row.split(" | ")[0] for row in rows] == ["| LoRA (ours)", "| AdapterH"]
    assert "LoRA (ours) & 73,728 & 73,728 & 0 & 1.8e-06 & 0 &" in tables["certificates.tex"]


def test_a_sweep_is_weights_by_ranks() -> None:
    tables = papers_tables(made_up.sweep(), [])
    assert list(tables) == ["sweep.md", "sweep.tex"]
    assert tables["sweep.md"].splitlines() == [
        "| Weights: film_review (accuracy) | r = 1 | r = 8 |",
        "| --- | ---: | ---: |",
        "| query | 71.0 ± 1.2 (70.0) | – |",
        "| query+value | 71.0 ± 1.2 (70.0) | 78.0 ± 1.2 (70.0) |",
    ]
    assert "$W_q, W_v$ & 71.0 $\\pm$ 1.2 (70.0) & 78.0" in tables["sweep.tex"]


def test_published_numbers_stand_beside_ours_with_the_difference() -> None:
    row = replace(made_up.PUBLISHED[0], citation="Hu et al. 2021, table 2")
    unlike = replace(row, like=False, note="ours starts from the encoder")
    alone = replace(row, ours=None, difference=None, like=False)
    tables = papers_tables(made_up.results(), [row, unlike, alone])
    name = "Hu et al. 2021, table 2: film_review (accuracy), LoRA (query+value, r = 8)"
    minus = "\N{MINUS SIGN}"
    assert tables["published.md"].splitlines() == [
        "| Published result | Published | Ours | Difference | Note |",
        "| --- | ---: | ---: | ---: | --- |",
        f"| {name} | 95.1 ± 0.2 | 76.5 ± 1.0 | {minus}18.6 |  |",
        f"| {name} | 95.1 ± 0.2 | 76.5 ± 1.0 | ({minus}18.6) | ours starts from the encoder |",
    ]
    finer = replace(row, published=0.7274, published_std=None, ours_std=None, difference=0.0376)
    shown = papers_tables(made_up.results(), [finer])["published.md"].splitlines()[-1]
    assert shown == f"| {name} | 72.74 | 76.50 | +3.76 |  |"
    assert tables["published.tex"].startswith("\\begin{tabular}{lrrrp{0.3\\linewidth}}\n")


def test_one_seed_has_no_spread_and_scores_may_be_negative() -> None:
    cells = made_up.results().statistics.cells
    found = made_up.described(cells=[replace(cell, std=None, median=-0.031) for cell in cells])
    tables = papers_tables(found, [])
    assert "| LoRA (ours) | 0.074 | \N{MINUS SIGN}3.1 (\N{MINUS SIGN}3.1) |" in tables["scores.md"]
    assert "& $-$3.1 ($-$3.1) &" in tables["scores.tex"]


def test_a_task_of_ones_own_may_have_any_name() -> None:
    about = builders.study(metrics={"a|b & 50%": "accuracy"})
    tables = papers_tables(builders.results(about), [])
    assert "| a\\|b & 50% (accuracy) |" in tables["scores.md"]
    assert "a|b \\& 50\\% (accuracy)" in tables["scores.tex"]


def test_the_readmes_table_needs_scores_alone_and_ends_with_the_baselines() -> None:
    found = made_up.results()
    alone = Results(study=found.study, statistics=found.statistics, cells=found.cells)
    assert readme_table(alone).splitlines() == [
        "| method | trained: adapter + head | film_review (accuracy) | rating (pearson) |",
        "| --- | ---: | ---: | ---: |",
        "| LoRA (ours) | 73,728 + 770 | 76.5 ± 1.0 (75.5) | 83.0 ± 1.0 (82.0) |",
        "| AdapterH | 152,256 + 770 | 74.0 ± 2.5 (73.0) | – |",
        "| Full fine-tuning | 22,713,216 + 770 | 74.8 ± 2.2 (73.8) | 86.5 ± 0.5 (85.5) |",
        "| majority class or mean | 0 | 48.2 | 48.2 |",
    ]
    shown = shown_results(alone, made_up.CLAIMS, made_up.FIGURES)
    assert shown.startswith(readme_table(alone) + "\n\n![Scores of two methods.](plots/scores.svg)")
    assert "| On par | Hu et al. 2021, table 2 | supported |" in shown
