"""What the page says of tuning, from made-up results."""

from dataclasses import replace
from typing import Any

import pytest

import builders
import made_up_tuning as made_up
from peft_study.findings.page.render import render
from peft_study.findings.page.table import Table
from peft_study.findings.page.tables import tables
from peft_study.findings.page.tuning import QUESTION, tuning_sentences, values_words
from peft_study.findings.page.words import findings
from peft_study.findings.results import Results
from peft_study.records.scores import Difference
from peft_study.records.study import InitInfo, TuneInfo
from peft_study.records.tuning import Tuning, WhoWasTuned

MINUS = "\N{MINUS SIGN}"


def said(results: Results | None = None) -> list[str]:
    return findings(results or made_up.results(), [])[QUESTION]


def shown(results: Results | None = None) -> dict[str, Table]:
    found = tables(results or made_up.results(), [])["tuning"]
    return {table.name: table for table in found}


def changed(**parts: Any) -> Results:
    """Return the made-up results with other parts of what tuning found."""
    results = made_up.results()
    assert results.tuning
    return replace(results, tuning=replace(results.tuning, **parts))


def test_the_findings_follow_the_numbers() -> None:
    assert said() == [
        "Warning: the chosen learning rate is the highest of the grid for LoRA (ours) on film. A "
        "higher one may be better, and should be listed.",
        "In 1 of 12 trials a seed failed, so that they could not be chosen.",
        "Tuned is better than untuned in 2 of 3: LoRA (ours) on film, +8.0 points (95% interval "
        "+7.6 to +8.4); Full fine-tuning on rating, +2.0 points (95% interval +1.6 to +2.4).",
        "Tuned is equivalent to untuned in 1 of 3: LoRA (ours) on rating, +0.0 points (95% "
        f"interval {MINUS}0.4 to +0.4).",
        "Not compared, since the study had these values: Full fine-tuning on film.",
        "film: the conclusion depends on who was tuned. LoRA (ours) minus full fine-tuning: both "
        f"tuned {MINUS}0.3 points (95% interval {MINUS}0.8 to +0.1), equivalent; only LoRA (ours) "
        f"tuned {MINUS}0.3 points (95% interval {MINUS}0.8 to +0.1), equivalent; only Full "
        f"fine-tuning tuned {MINUS}8.3 points (95% interval {MINUS}8.8 to {MINUS}7.9), worse; "
        f"neither tuned {MINUS}8.3 points (95% interval {MINUS}8.8 to {MINUS}7.9), worse.",
        "rating: nothing is shown, whoever was tuned. LoRA (ours) minus full fine-tuning: both "
        f"tuned {MINUS}1.0 points (95% interval {MINUS}2.2 to +0.2), undecided; only LoRA (ours) "
        f"tuned +1.0 points (95% interval {MINUS}0.2 to +2.2), undecided; only Full fine-tuning "
        f"tuned {MINUS}1.0 points (95% interval {MINUS}2.0 to +0.0), undecided; neither tuned "
        "+1.0 points (95% interval +0.0 to +2.0), undecided.",
        "These 6 questions are corrected together (Holm), apart from those of the study itself: "
        "what is shown there with both tuned need not be shown here.",
        "Every tuned method had the same 3 trials on every task (learning rate 0.001, 0.002, "
        "0.004), with seeds 101, 102, which the results do not use, and scored on 100 of the "
        "training rows (about 20%), which the trials did not train on. The results are of "
        "the winners, trained with the study's seeds on all training rows; the held-out rows that "
        "score them chose nothing.",
        "The intermediate run, on product, keeps the untuned values of each method.",
        "Tuning took 24 runs and 1,760 optimiser steps, 1.47 times the 1,200 steps of the 12 runs "
        "that are reported; the steps of 2 failed runs are not known.",
    ]


def test_the_tables_hold_the_inputs() -> None:
    found = shown()
    assert list(found) == ["tuning", "who-was-tuned", "tuning-for-all", "tuning-cost"]
    rate = "learning rate 0.002"
    assert found["tuning-for-all"].rows[0] == ["LoRA (ours)", rate, "80.0", "1.7", rate, "80.0"]
    lora, *_, same, _ = found["tuning"].rows
    assert lora == [
        *("film: LoRA (ours)", "3", "100", "learning rate 0.004", "learning rate: highest", "80.5"),
        *("78.3 to 82.7", "72.5", "70.3 to 74.7", "+8.0", "+7.6 to +8.4", "< 0.001", "better"),
    ]
    assert same[0] == "film: Full fine-tuning"
    assert same[7:] == ["–", "–", "–", "–", "–", "the study had these values"]
    assert [row[0] for row in found["who-was-tuned"].rows[:4]] == [
        *("film: both tuned", "film: only LoRA (ours) tuned"),
        *("film: only Full fine-tuning tuned", "film: neither tuned"),
    ]
    assert found["who-was-tuned"].rows[3][1:] == [
        *(f"{MINUS}8.3", f"{MINUS}8.8 to {MINUS}7.9", "3", "< 0.001", "1.000", "worse")
    ]
    assert found["tuning-cost"].rows[-1] == [
        *("All methods", "24", "2", "1,760", "12", "1,200", "1.47")
    ]


def test_what_the_intermediate_run_keeps_is_said_only_where_there_is_one() -> None:
    alone = made_up.results(mnli_init=InitInfo("none", "product", ()))
    assert not any("intermediate" in sentence for sentence in said(alone))
    assert "intermediate" not in " ".join(shown(alone)["tuning"].notes)
    assert "intermediate" in " ".join(shown()["tuning"].notes)


def test_factors_are_called_so_and_other_hyperparameters_are_named() -> None:
    tune = TuneInfo({"epochs": (3, 6), "learning_rate": (0.5, 1.0, 2.0)}, True, (7,), 0.25)
    found = " ".join(said(made_up.results(tune=tune)))
    assert "(epochs 3, 6; learning rate 0.5, 1, 2 times each method's own), with seeds 7," in found
    assert "on 100 of the training rows (about 25%)" in found
    assert values_words({"epochs": 16.0, "learning_rate": 5e-5}) == "epochs 16, learning rate 5e-05"


def with_verdicts(*verdicts: str) -> str:
    """Return what is said of film where the four comparisons show these."""
    ends = {"equivalent": (-0.01, 0.01, True), "worse": (-0.05, -0.03, False)}
    ends |= {"undecided": (-0.03, 0.03, False), "unlearned": (-0.03, 0.03, False)}
    ways = [("lora", "full_ft"), ("lora",), ("full_ft",), ()]
    found: list[Difference] = [
        builders.difference("film", *ends[of], unlearned=("lora",) if of == "unlearned" else ())
        for of in verdicts
    ]
    who = tuple(WhoWasTuned(*of) for of in zip(ways, found, strict=True))
    (sentence,) = [of for of in said(changed(who=who)) if of.startswith("film: ")]
    return sentence


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        (
            ["equivalent"] * 4,
            "does not depend on who was tuned: LoRA (ours) is equivalent to full fine-tuning each",
        ),
        (["equivalent", "worse", "equivalent", "equivalent"], "conclusion depends on who"),
        (["worse", "undecided", "undecided", "worse"], "shown only in some cases"),
        (["undecided", "unlearned", "undecided", "undecided"], "nothing is shown"),
    ],
)
def test_whether_the_conclusion_depends_on_who_was_tuned(verdicts: list[str], says: str) -> None:
    assert says in with_verdicts(*verdicts)


def test_learning_through_tuning_is_said() -> None:
    results = made_up.results()
    assert results.tuning
    first, *rest = results.tuning.cells
    assert first.untuned
    slow = replace(first, untuned=replace(first.untuned, learned=False))
    assert not any("had not learned" in sentence for sentence in said())
    assert "Untuned had not learned: LoRA (ours) on film." in said(changed(cells=(slow, *rest)))
    trials = tuple(replace(of, scored=replace(of.scored, learned=False)) for of in first.trials)
    flat = replace(first, trials=trials)
    assert "3 of 12 trials have not learned." in said(changed(cells=(flat, *rest)))


def test_of_many_cells_differences_are_left_to_their_table() -> None:
    results = made_up.results()
    assert results.tuning
    cells = [replace(of, task=f"task{at}") for of in results.tuning.cells for at in range(5)]
    found: Tuning = replace(results.tuning, cells=tuple(cells))
    sentence = next(of for of in tuning_sentences(results, found) if "better than" in of)
    assert sentence == (
        "Tuned is better than untuned in 10 of 15: LoRA (ours) on task0, task1, task2, task3, "
        "task4; Full fine-tuning on task0, task1, task2, task3, task4."
    )


def test_the_page_has_a_section_of_tuning_only_where_something_was_tuned() -> None:
    results = made_up.results()
    page = render(results, [], [], [], {})
    assert '<li><a href="#tuning">Tuning</a></li>' in page
    assert '<section id="tuning"' in page
    assert '<a href="../metrics/tuning.json">' in page
    assert "Warning: the chosen learning rate" in page
    none = replace(results, tuning=None)
    without = render(none, [], [], [], {})
    assert "#tuning" not in without
    assert QUESTION not in findings(none, [])
    assert QUESTION not in without
