"""Fronts of score and cost, where it is known who is on them, and what the page says of them."""

from dataclasses import replace
from typing import Any

import many_methods
from peft_study.findings.front import fronts, left_out
from peft_study.findings.page.fronts import front_sentences, front_tables
from peft_study.findings.results import Results
from peft_study.records.scores import Average, OverTasks, Unlearned

MEANS = {"full_ft": 0.9, "lora": 0.8, "bitfit": 0.7, "ia3": 0.75, "oft": 0.6, "prefix": 0.8}
MEANS["lora_r1"] = 0.72


def made_up(**changes: Any) -> Results:
    """Return results whose mean scores are `MEANS`; LoRA is told apart from BitFit alone."""
    averages = tuple(Average(name, "cross_fitted", 8, (), of) for name, of in MEANS.items())
    told = {("lora", "bitfit"): 0.01, ("lora", "ia3"): 0.2, ("full_ft", "lora"): 0.6}
    pairs = tuple(OverTasks(*pair, 0.1, 0.0, 0.2, p, 1.0) for pair, p in told.items())
    found = many_methods.results()
    about: dict[str, Any] = {"averages": averages, "over_tasks": pairs} | changes
    return replace(found, statistics=replace(found.statistics, **about))


def members(results: Results, cost: str) -> list[str]:
    (front,) = (of for of in fronts(results) if of.cost == cost)
    return [point.method for point in front.members]


def test_what_another_beats_in_both_is_not_on_the_front() -> None:
    # Prefix tuning scores as LoRA and trains more; OFT scores less than IA3 and trains more.
    assert members(made_up(), "parameters") == ["lora_r1", "ia3", "lora", "full_ft"]
    assert members(made_up(), "memory") == ["bitfit", "ia3", "lora", "full_ft"]
    # LoRA of rank 1 takes as long as IA3, and scores less.
    assert members(made_up(), "seconds") == ["bitfit", "ia3", "lora", "full_ft"]


def test_what_has_not_learned_is_on_no_front_and_beats_nothing() -> None:
    slow = Unlearned("lora", "qqp", (), whole=True)
    some = Unlearned("ia3", "qqp", ("1",), whole=False)
    results = made_up(unlearned=(slow, some))
    assert members(results, "parameters") == ["lora_r1", "ia3", "prefix", "full_ft"]
    assert left_out(results)["lora"] == "has not learned every task"
    assert left_out(results)["dora"] == "does not have every task"
    by_task = {front.cost: front.members for front in fronts(results, "qqp")}
    assert "lora" not in [point.method for point in by_task["parameters"]]


def test_chance_is_told_by_the_corrected_comparisons_with_what_costs_less() -> None:
    (front,) = (of for of in fronts(made_up()) if of.cost == "memory")
    alike = {point.method: point.alike for point in front.members}
    assert alike["bitfit"] == ()
    assert alike["lora"] == ("ia3", "lora_r1")
    # Prefix tuning is beaten by LoRA alone, OFT by BitFit and others: nothing tells them apart.
    beaten = {point.method: point.alike for point in front.points if not point.on_front}
    assert beaten["prefix"] == ("lora",)
    assert beaten["oft"] == ("bitfit", "ia3", "lora_r1", "lora", "prefix")
    told = OverTasks("ia3", "oft", 0.1, 0.05, 0.2, 0.01, 1.0)
    more = (*made_up().statistics.over_tasks, told)
    (front,) = (of for of in fronts(made_up(over_tasks=more)) if of.cost == "memory")
    assert {point.method: point.alike for point in front.points}["oft"] == ()
    (sentence, *_) = front_sentences(made_up())
    assert "IA3 (18,000); LoRA (ours) (73,728); Full fine-tuning (22,713,216)." in sentence
    assert "LoRA (ours) from LoRA of rank 1" in sentence
    one_seed = made_up(over_tasks=())
    assert all(point.alike is None for of in fronts(one_seed) for point in of.points)
    assert front_sentences(one_seed)[-1].startswith("One seed does not tell")


def test_costs_that_were_not_measured_are_said_to_be_so() -> None:
    nothing = replace(made_up(), profile=None)
    assert [front.cost for front in fronts(nothing)] == ["parameters"]
    words = " ".join(front_sentences(nothing))
    assert "Memory and time were not measured: the study has no profile." in words
    profile = made_up().profile
    assert profile
    (task,) = profile.tasks
    fewer = replace(task, memory=tuple(of for of in task.memory if of.recipe.method != "ia3"))
    some = replace(made_up(), profile=replace(profile, tasks=(fewer,)))
    assert "ia3" not in members(some, "memory")
    assert "Not measured: IA3." in " ".join(front_sentences(some))


def test_the_tables_name_the_front_of_all_tasks_and_of_each() -> None:
    whole, by_task = front_tables(many_methods.results())
    full = next(row for row in whole.rows if row[0] == "Full fine-tuning")
    assert full[2:5] == ["22,713,216", "1,048.0 MB", "480 ms"]
    assert "DoRA (Liu et al. 2024 (DoRA), section 4)" in [row[0] for row in whole.rows]
    assert [row[0] for row in by_task.rows] == list(many_methods.TASKS)
    assert by_task.rows[1][2:] == ["not measured on it"] * 2
    (alone,) = front_tables(many_methods.results(tasks=1))
    assert len(alone.rows) == 12
