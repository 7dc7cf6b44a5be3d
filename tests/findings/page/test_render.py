"""The page from made-up results: its numbers, its sentences, and what may be missing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

import made_up
from peft_study.findings.page.render import conclusion, findings, render
from peft_study.findings.results import Results

EVIL = '</script><script>alert("1")</script><b>&'
MINUS = "\N{MINUS SIGN}"


class Words(HTMLParser):
    """Collect a page's text, its scripts aside, and the names of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] not in (["script"], ["style"]):
            self.text += f"{data}\n"


def page(results: Results | None = None, **changed: Any) -> str:
    parts: dict[str, Any] = {"claims": made_up.CLAIMS, "published": made_up.PUBLISHED}
    parts |= {"figures": made_up.FIGURES, "specs": made_up.SPECS, "ran": made_up.RAN} | changed
    return render(results or made_up.results(), **parts)


def words(html: str) -> str:
    parser = Words()
    parser.feed(html)
    return " ".join(parser.text.split())


@pytest.mark.parametrize(
    "shown",
    [
        "76.5 ± 1.0 (3)",  # scores
        "48.2",  # the best constant
        f"+2.6 {MINUS}3.0 to +8.1 3 0.183 0.652 undecided",  # differences
        "AdapterH on rating has no results",
        "A step takes 1.41 times as long.",  # claims
        "A small encoder instead of RoBERTa.",
        f"95.1 ± 0.2 76.5 ± 1.0 3 {MINUS}18.6",  # published
        "Low-Rank Adaptation of Large Language Models.",
        "Learning curves, made up.",  # figures
        "0.66 0.62 to 0.71 12.85 ± 1.11 1,068",  # steps
        "816.5",  # memory
        "27.80 23.10 to 49.70 0.98 0.79 to 1.42",  # latency
        "Energy was not measured: RAPL cannot be read.",
        "film_review: LoRA (ours) 74.2 2 of 3 2.0 24.4",  # equal scores
        "589,824",  # parity
        "6.3e-08",
        "Tolerance: 1e-05.",
        "0123456789abcdef0123456789abcdef01234567",  # what ran
        "1 h 02 min 05 s",
        "805617e2",
        "2.13.0",
        "epochs: 2",
    ],
)
def test_the_page_holds_the_inputs(shown: str) -> None:
    assert shown in words(page())


def test_the_findings_follow_the_numbers() -> None:
    found = findings(made_up.results(), made_up.CLAIMS)
    assert list(found.values()) == [
        [
            "LoRA (ours) is worse than full fine-tuning on 1 of 2 tasks (rating).",
            "LoRA (ours) cannot be told from, nor called equivalent to, full fine-tuning on 1 of 2 "
            "tasks (film_review).",
            "film_review (accuracy): LoRA (ours) minus full fine-tuning is +2.6 points (95% "
            f"interval {MINUS}3.0 to +8.1) over 3 seeds; undecided: neither a difference nor "
            "equivalence within ±2.0 points; 5.5 points would have been significant.",
            f"rating (pearson): LoRA (ours) minus full fine-tuning is {MINUS}3.5 points (95% "
            f"interval {MINUS}5.7 to {MINUS}1.3) over 3 seeds; worse: the interval excludes zero.",
        ],
        [
            "LoRA (ours) trains 73,728 parameters besides the head, 0.32% of the 22,713,216 that "
            "full fine-tuning trains.",
            "A training step of LoRA (ours) takes 0.66 times as long as one of full fine-tuning "
            "(95% interval 0.62 to 0.71), on film_review in batches of 16.",
            "It needs 816.5 MB at its peak against 1,048.8 MB (0.78 times, 537.0 MB of either "
            "being libraries), and stores 0.3 MB per task against 90.9 MB.",
            "Merged into the weights, it computes one example in 0.98 times the pretrained "
            "model's time (95% interval 0.79 to 1.42), equal within noise.",
        ],
        [
            "Without results, and in no average: AdapterH on rating.",
            "Claims not measured: 1 of 3; see the verdicts.",
            "Other programs used 23% of the processors while times were measured: ratios, whose "
            "parts were measured in turns, say more than seconds.",
            "Energy was not measured: RAPL cannot be read.",
        ],
    ]


@pytest.mark.parametrize(
    ("low", "high", "equivalent", "verdict"),
    [
        (0.01, 0.05, False, "better"),
        (-0.05, -0.01, False, "worse"),
        (-0.01, 0.01, True, "equivalent"),
        (0.001, 0.012, True, "equivalent"),
        (-0.05, 0.05, False, "undecided"),
        (None, None, None, "undecided"),
    ],
)
def test_conclusions(
    low: float | None, high: float | None, equivalent: bool | None, verdict: str
) -> None:
    mean = (low + high) / 2 if low is not None and high is not None else 0.01
    difference = {"mean": mean, "low": low, "high": high, "margin": 0.02, "detectable": None}
    found, said = conclusion(difference | {"equivalent": equivalent})
    assert found == verdict
    assert said.startswith(verdict)
    assert ("though not zero" in said) == (low == 0.001)


def test_claims_not_measured_come_last_and_verdicts_are_words() -> None:
    said = words(page())
    order = [said.index(claim["statement"]) for claim in made_up.CLAIMS]
    assert order[1] < order[2] < order[0]
    for shown in ("✔ supported", "✘ contradicted", "○ not measured"):
        assert shown in said


def test_the_same_inputs_give_the_same_bytes_and_others_do_not() -> None:
    first = page()
    assert page() == first
    results = made_up.results()
    cells = [cell | {"median": 0.123} for cell in results.statistics["cells"]]
    assert page(replace(results, statistics=results.statistics | {"cells": cells})) != first
    assert page(claims=made_up.CLAIMS[1:]) != first
    assert page(ran=made_up.RAN | {"commit": None}) != first


def test_nothing_given_becomes_markup() -> None:
    results = made_up.results()
    study = results.study | {"study": EVIL, "main_metrics": {EVIL: "accuracy"}}
    study["params"] = {"study": EVIL}
    claims = [made_up.CLAIMS[1] | {"statement": EVIL, "finding": EVIL, "files": [EVIL]}]
    figures = [made_up.FIGURES[0] | {"title": EVIL, "alt": EVIL, "caption": EVIL}]
    specs = {"scores": made_up.SPECS["scores"] | {"description": EVIL}}
    found = page(replace(results, study=study), claims=claims, figures=figures, specs=specs)
    parser = Words()
    parser.feed(found)
    assert parser.elements.count("script") == 2
    assert "b" not in parser.elements
    assert EVIL in parser.text
    inlined = re.search(r'id="specs">(.*?)</script>', found, re.DOTALL)
    assert inlined
    assert json.loads(inlined[1])["scores"]["description"] == EVIL


def test_every_part_names_its_file_beside_the_page() -> None:
    found = set(re.findall(r'href="([^"]*)"', page()))
    linked = {link for link in found if not link.startswith(("#", "data:"))}
    assert all(link.startswith("../") for link in linked)
    names = ("statistics", "summary", "profile", "claims", "published", "parity", "iso_accuracy")
    assert {f"../metrics/{name}.json" for name in names} <= linked
    assert {"../plots/data/curves.json", "../plots/curves.svg", "../params.yaml"} <= linked


def test_the_page_is_small_and_asks_for_nothing() -> None:
    found = page()
    assert len(found.encode()) < 5_000_000
    assert not re.search(r'\s(src|srcset)="', found.partition('<script type="module">')[0])
    assert "default-src 'none'" in found


def test_a_sweep_alone_renders() -> None:
    said = words(page(made_up.sweep(), claims=[], published=[], figures=[], specs={}))
    assert "the study is a sweep of LoRA's settings" in said
    assert "query+value 71.0 ± 1.2 78.0 ± 1.2" in said
    assert "Energy was not measured: no profile was made." in said
    for absent in ("Verdicts", "Published", "Figures", "Parity"):
        assert absent not in said


def test_missing_parts_are_named() -> None:
    results = made_up.results()
    for missing, shown in (("full_ft", "Full fine-tuning"), ("lora", "LoRA")):
        methods = [name for name in results.study["methods"] if name != missing]
        found = replace(results, study=results.study | {"methods": methods})
        assert f"{shown} is not part of the study" in words(page(found))
    without = replace(results, profile={}, iso_accuracy={"margin": 0.005, "runs": []})
    ran = made_up.RAN | {"machine": {}, "commit": None, "data": {}}
    said = words(page(without, ran=ran))
    assert "Time and memory were not measured." in said
    assert "Commit none" in said
    differences = [row for row in results.statistics["differences"] if row["task"] != "rating"]
    found = replace(results, statistics=results.statistics | {"differences": differences})
    assert "rating: not compared, because results are missing." in words(page(found))


def test_one_seed_has_no_intervals() -> None:
    results = made_up.results()
    none = dict.fromkeys(("low", "high", "p", "p_equivalence", "equivalent", "detectable"))
    differences = [row | none | {"n": 1} for row in results.statistics["differences"]]
    cells = [
        cell | dict.fromkeys(("std", "cv", "low", "high")) | {"n": 1}
        for cell in results.statistics["cells"]
    ]
    found = results.statistics | {"differences": differences, "cells": cells}
    study = results.study | {"seeds": [1]}
    said = words(page(replace(results, statistics=found, study=study)))
    assert "One seed gives neither a spread nor an interval." in said
    assert "there is no interval without a second seed" in said
    assert "76.5 (1)" in said


def test_measured_energy_is_a_table() -> None:
    results = made_up.results()
    cell = {"joules_per_step": 12.34, "joules_per_epoch": 394.9, "watts": 30.1}
    for source, words_of_it in (("NVML", "measured by NVML"), ("estimate", "estimated")):
        energy = {"cells": {"lora": cell}, "source": source, "reason": None}
        said = words(page(replace(results, profile=results.profile | {"energy": energy})))
        assert "LoRA (ours) 12.34 394.9 30.1" in said
        assert f"Energy {'is' if source == 'estimate' else 'was'} {words_of_it}" in said


def test_published_costs_are_shown_in_their_unit_and_scores_times_100() -> None:
    seconds = made_up.PUBLISHED[0] | {"metric": "iso_accuracy_seconds", "is_fraction": False}
    seconds |= {"published": 644.9, "published_std": None, "ours": 12.5, "ours_std": 0.25}
    shown = words(page(published=[*made_up.PUBLISHED, seconds | {"difference": -632.4}]))
    assert f"iso_accuracy_seconds 644.9 12.5 ± 0.25 3 {MINUS}632.4" in shown
    assert "95.1 ± 0.2" in shown
