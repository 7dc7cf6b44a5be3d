"""The page from made-up results: its numbers, its sentences, and what may be missing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

import builders
import made_up
import many_methods
from peft_study.findings.page.render import render
from peft_study.findings.page.table import Table
from peft_study.findings.page.tables import tables
from peft_study.findings.page.words import conclusion, findings, overview
from peft_study.findings.results import Results
from peft_study.records.costs import Batch, EnergyCost, EnergySource, Recipe
from peft_study.records.study import InitInfo, TaskInfo

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
    parts |= {"figures": made_up.FIGURES, "specs": made_up.SPECS} | changed
    return render(results or made_up.results(), **parts)


def words(html: str) -> str:
    parser = Words()
    parser.feed(html)
    return " ".join(parser.text.split())


@pytest.mark.parametrize(
    "shown",
    [
        "76.5 ± 1.0 (75.5)",  # scores
        "48.2",  # the best constant
        f"+2.6 {MINUS}3.0 to +8.1 3 0.183 0.500 0.500 undecided",  # differences
        "AdapterH on rating has no results: seed 3: the loss is nan after step 12.",
        "A step takes 1.41 times as long.",  # claims
        "A small encoder instead of RoBERTa.",
        f"95.1 ± 0.2 76.5 ± 1.0 {MINUS}18.6 3",  # published
        "Low-Rank Adaptation of Large Language Models.",
        "Learning curves, made up.",  # figures
        "LoRA (ours), r = 8 16 200.0 190.0 2.0 404.0 12.85 ± 1.11 0.66 0.62 to 0.71 1,068",  # steps
        "as measured 816.5 – 0.78 0.76 to 0.79",  # memory
        "beyond libraries 279.5",
        "27.80 23.10 to 49.70 0.98 0.79 to 1.42",  # latency
        "Base model, a second copy 27.80 23.10 to 49.70 1.00 0.99 to 1.01",
        "Energy was not measured: RAPL cannot be read.",
        "film_review: LoRA (ours) 74.2 2 of 3 2.0 24.4",  # equal scores
        "LoRA (ours), r = 2, query+value 73,728 LoRA (ours), r = 16, query+value 589,824",  # parity
        "LoRA (ours) 73,728 73,728 0 1.8e-06 0 8.6e-07 7.1e-07 1.0e-02 ranks fell from 96 to 49",
        "AdapterH 152,256 – 9.4e-02 1.8e-06 0 8.6e-07 – – not merged: its update does not merge",
        "Merge r = 3, alpha = 16, dropout 0.1 merged forward 6.3e-08",
        "Tolerance: 1e-05. Dropout: 10.0% dropped in training.",
        "1 h 02 min 05 s",  # what ran
        "Memory 25.3 GB",
        "805617e2",
        "2.13.0",
        "epochs: 2",
    ],
)
def test_the_page_holds_the_inputs(shown: str) -> None:
    assert shown in words(page())


@pytest.mark.parametrize(
    ("mode", "resample", "says"),
    [
        (
            "per_method",
            "none",
            "all seeds share one draw of training rows and one intermediate run. ",
        ),
        ("none", "none", "all seeds share one draw of training rows. "),
        ("per_method", "per_seed", "rows of its own, and all share one intermediate run. "),
        ("none", "per_seed", "Each seed has training rows of its own. "),
    ],
)
def test_what_seeds_share_is_told(mode: str, resample: str, says: str) -> None:
    results = made_up.results()
    data = replace(results.study.data, resample=resample)
    about = replace(results.study, mnli_init=InitInfo(mode, "product", ("rating",)), data=data)
    sentences, *_ = findings(replace(results, study=about), made_up.CLAIMS).values()
    assert says in sentences[-1]


def test_the_findings_follow_the_numbers() -> None:
    found = findings(made_up.results(), made_up.CLAIMS)
    assert list(found.values()) == [
        [
            "LoRA (ours) is worse than full fine-tuning on 1 of 2 tasks (rating).",
            "LoRA (ours) cannot be told from, nor called equivalent to, full fine-tuning on 1 of 2 "
            "tasks (film_review).",
            "film_review (accuracy): LoRA (ours) minus full fine-tuning is +2.6 points (95% "
            f"interval {MINUS}3.0 to +8.1) over 3 seeds and 400 held-out rows; undecided: neither "
            "a difference nor equivalence within ±2.0 points. A difference of 5.5 points would "
            "have been shown in 80% of such studies; 100% of the variance is of the seeds, 0% of "
            "the rows. What would settle it: only more of both, seeds and rows.",
            f"rating (pearson): LoRA (ours) minus full fine-tuning is {MINUS}3.5 points (95% "
            f"interval {MINUS}5.7 to {MINUS}1.3) over 3 seeds and 400 held-out rows; worse.",
            "Intervals and tests cover the chance of seeds and of held-out rows, approximately: "
            "there are fewer than 5 seeds or 256 rows. They are of cross-fitted scores: no row "
            "scores the evaluation that it chose. They hold for these training rows: all seeds "
            "share one draw of training rows and one intermediate run. The 2 tests are corrected "
            "together (Holm).",
        ],
        [
            "LoRA (ours) trains 73,728 parameters besides the head, 0.32% of the 22,713,216 that "
            "full fine-tuning trains.",
            "An epoch of LoRA (ours) takes 0.66 times as long as one of full fine-tuning (95% "
            "interval 0.62 to 0.71), on film_review in batches of 16.",
            "It needs 816.5 MB at its peak against 1,048.8 MB on film_review: 0.78 times as much "
            "(95% interval 0.76 to 0.79), and 0.55 times beyond what the libraries need (95% "
            "interval 0.54 to 0.56). It stores 0.3 MB per task against 90.9 MB.",
            "Merged into the weights, it takes 0.98 times the base model's time for one example "
            "(95% interval 0.79 to 1.42) and 1.17 times for the validation set of film_review; a "
            "second copy of the base model takes 1.00 times (95% interval 0.99 to 1.01) and 1.00 "
            "times (95% interval 0.99 to 1.01).",
        ],
        [
            "By trained parameters: LoRA (ours) (73,728); Full fine-tuning (22,713,216).",
            "By the peak of memory: LoRA (ours) (816.5 MB); Full fine-tuning (1,048.8 MB).",
            "By the time of a training step: Full fine-tuning (404 ms).",
            "Memory and time are those of film_review. Not measured: AdapterH.",
            "On no front: AdapterH does not have every task.",
            "One seed does not tell by how much chance decides who is on a front.",
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
    found, said = conclusion(builders.difference("film", low, high, equivalent), builders.study())
    assert found == verdict
    assert said.startswith(verdict)
    assert ("though not zero" in said) == (low == 0.001)


def test_the_same_inputs_give_the_same_bytes_and_others_do_not() -> None:
    first = page()
    assert page() == first
    cells = made_up.results().statistics.cells
    assert page(made_up.described(cells=[replace(row, median=0.123) for row in cells])) != first
    assert page(claims=made_up.CLAIMS[1:]) != first


def test_verdicts_are_words_and_only_what_is_reported_is_shown() -> None:
    said = words(page())
    order = [said.index(claim.statement) for claim in made_up.CLAIMS]
    assert order[1] < order[2] < order[0]  # claims that were not measured come last
    for shown in ("✔ supported", "✘ contradicted", "○ not measured"):
        assert shown in said
    assert said.count("film_review: LoRA (ours) accuracy") == 1
    assert "film_review: LoRA (ours) accuracy 76.5 ± 1.0" in said
    last = made_up.results(study=made_up.study(report="last"))
    assert "film_review: LoRA (ours) accuracy" not in words(page(last))


def test_nothing_given_becomes_markup() -> None:
    tasks = (TaskInfo(EVIL, "accuracy", None),)
    study = made_up.study(study=EVIL, tasks=tasks, params={"study": EVIL})
    claims = [replace(made_up.CLAIMS[1], statement=EVIL, finding=EVIL, files=(EVIL,))]
    figures = [replace(made_up.FIGURES[0], title=EVIL, alt=EVIL, caption=EVIL)]
    specs = {"scores": made_up.SPECS["scores"] | {"description": EVIL}}
    results = made_up.results(study=study)
    found = page(results, claims=claims, figures=figures, specs=specs)
    parser = Words()
    parser.feed(found)
    assert parser.elements.count("script") == 2
    assert "b" not in parser.elements
    assert EVIL in parser.text
    inlined = re.search(r'id="specs">(.*?)</script>', found, re.DOTALL)
    assert inlined
    assert json.loads(inlined[1])["scores"]["description"] == EVIL


def test_it_is_small_and_asks_for_nothing_but_links_the_file_of_every_part_beside_it() -> None:
    html = page()
    assert len(html.encode()) < 5_000_000
    assert not re.search(r'\s(src|srcset)="', html.partition('<script type="module">')[0])
    assert "default-src 'none'" in html
    found = re.findall(r'href="([^"]*)"', html)
    linked = {link for link in found if not link.startswith(("#", "data:"))}
    assert all(link.startswith("../") for link in linked)
    names = ["statistics", "profile", "claims", "published", "parity", "certificates"]
    files = [f"metrics/{name}.json" for name in (*names, "iso_accuracy")]
    files += ["metrics/runs", "params.yaml"]
    files += ["plots/data/curves.json", "plots/curves.svg"]
    assert {f"../{name}" for name in files} <= linked


def test_a_sweep_alone_renders() -> None:
    said = words(page(made_up.sweep(), claims=[], published=[], figures=[], specs={}))
    assert "the study is a sweep of LoRA's settings" in said
    assert "query+value 71.0 ± 1.2 (70.0) 78.0 ± 1.2 (70.0)" in said
    assert "Energy was not measured: no profile was made." in said
    for absent in ("Verdicts", "Published", "Figures", "Certificates", "Parity"):
        assert absent not in said


def test_missing_parts_are_named() -> None:
    for missing, shown in (("full_ft", "Full fine-tuning"), ("lora", "LoRA")):
        methods = tuple(row for row in made_up.study().methods if row.name != missing)
        found = made_up.results(study=made_up.study(methods=methods))
        assert f"{shown} is not part of the study" in words(page(found))
    none = made_up.results(profile=None, iso_accuracy=None, cells={}, parity=None)
    said = words(page(none))
    assert "Time and memory were not measured." in said
    assert "Machine and time" not in said
    kept = [row for row in none.statistics.differences if row.task != "rating"]
    said = words(page(made_up.described(differences=kept)))
    assert "rating: not compared, because results are missing." in said


def test_one_seed_has_no_intervals() -> None:
    several = made_up.results().statistics
    none: dict[str, Any] = {"n": 1, "low": None, "high": None}
    of_pairs = none | dict.fromkeys(
        ("p", "p_equivalence", "p_holm", "equivalence_holm", "detectable", "chance")
    )
    differences = tuple(replace(row, **of_pairs) for row in several.differences)
    cells = tuple(replace(cell, std=None, cv=None, **none) for cell in several.cells)
    found = made_up.described(differences=differences, cells=cells)
    said = words(page(replace(found, study=made_up.study(seeds=(1,)))))
    assert "One seed gives neither a spread nor an interval." in said
    assert "there is no interval without two seeds that both have" in said
    assert "76.5 (75.5)" in said


def test_measured_energy_is_a_table() -> None:
    cells = (EnergyCost(made_up.LORA, 12.34, 394.9, 30.1),)
    for source, words_of_it in (("NVML", "was measured by NVML"), ("estimate", "is estimated")):
        measured = EnergySource(source, None)
        profile = replace(made_up.profile(energy=cells), energy=measured)
        said = words(page(made_up.results(profile=profile)))
        assert "LoRA (ours), r = 8 12.34 394.9 30.1" in said
        assert f"Energy {words_of_it}" in said


def test_published_costs_are_shown_in_their_unit_and_scores_times_100() -> None:
    row = replace(made_up.PUBLISHED[0], metric="iso_accuracy_seconds", is_fraction=False)
    row = replace(row, published=644.9, published_std=None, ours=12.5, ours_std=0.25)
    shown = words(page(published=[*made_up.PUBLISHED, replace(row, difference=-632.4)]))
    assert f"iso_accuracy_seconds 644.9 12.5 ± 0.25 {MINUS}632.4 3" in shown
    assert "95.1 ± 0.2" in shown


def test_unlike_published_results_are_bracketed_and_those_without_ours_apart() -> None:
    row = replace(made_up.PUBLISHED[0], like=False, note="ours starts from the encoder")
    alone = replace(row, ours=None, ours_std=None, n=None, difference=None, note="not measured")
    shown = words(page(published=[row, alone]))
    assert f"95.1 ± 0.2 76.5 ± 1.0 ({MINUS}18.6) 3 ours starts from the encoder" in shown
    assert "accuracy 95.1 ± 0.2 not measured" in shown


def test_costs_say_what_they_were_measured_at_where_the_study_trains_another() -> None:
    method = builders.method("lora", r=64, targets=("query",))
    study = made_up.study(methods=(method, builders.method("full_ft")))
    said = findings(made_up.results(study=study), [])["At what cost?"]
    assert [part.endswith(", measured at r = 8, query+value.") for part in said[1:]] == [True] * 3


def test_a_method_of_ones_own_appears_by_its_label() -> None:
    own = replace(builders.method("lora"), name="own", label="Own LoRA", place=5)
    study = made_up.study(methods=(*made_up.study().methods, own))
    (costs,) = made_up.profile().tasks
    step = replace(costs.training[0], recipe=Recipe("own", 4))
    profile = made_up.profile(training=(step,), batches=costs.batches | {"own": Batch(8, 2)})
    parity = replace(made_up.parity(), settings={"own r=4": Recipe("own", 4)}, counts={"bert": {}})
    said = words(page(made_up.results(study=study, profile=profile, parity=parity)))
    for shown in (" r 8", " – – – –", ", r = 4 8 in 2 pieces 200.0", ", r = 4 –"):
        assert f"Own LoRA{shown}" in said


def test_the_lengths_of_texts_that_are_a_tasks_own_are_told() -> None:
    own = {"mrpc": None, "rte": 128, "sst2": 16}
    tasks = tuple(TaskInfo(task, "accuracy", ("no", "yes"), most) for task, most in own.items())
    told = [overview(builders.study(tasks=some))["Model"] for some in (tasks, tasks[:1])]
    assert [words.partition("texts of up to ")[2] for words in told] == [
        "64 tokens (rte 128, sst2 16)",
        "64 tokens",
    ]


def tables_of(results: Results) -> dict[str, Table]:
    return {table.name: table for table in tables(results, [])["scores"]}


def test_differences_of_many_methods_are_grouped_by_reference() -> None:
    found = tables_of(many_methods.results())
    assert "differences-pairs" not in found
    assert "pairs" not in found
    full, lora = found["differences-from-full-ft"], found["differences-from-lora"]
    assert len(full.rows) == len(lora.rows) == 11
    assert full.head[1:9] == [*many_methods.TASKS]
    assert "168 questions" in full.notes[0]
    assert "more than 6 different methods" in full.notes[1]
    # The same question from either side.
    of_lora = next(row for row in full.rows if row[0] == "LoRA (ours)")
    of_full = next(row for row in lora.rows if row[0] == "Full fine-tuning")
    mine, theirs = (
        float(row[1].split("\N{NO-BREAK SPACE}")[0].replace(MINUS, "-"))
        for row in (of_lora, of_full)
    )
    assert mine == -theirs
    few = tables_of(many_methods.results(tasks=1))
    assert len(few["differences-pairs"].rows) == 21
    assert "more than 6 different methods" in few["pairs"].notes[1]
    assert "matrix" not in few


def test_the_matrix_tells_every_pair_once() -> None:
    matrix = tables_of(many_methods.results())["matrix"]
    assert len(matrix.rows) == 12
    assert all(len(row) == len(matrix.head) == 12 for row in matrix.rows)
    assert sum(bool(cell) for row in matrix.rows for cell in row[1:]) == 66
    assert matrix.rows[-1][0] == "12 Prefix tuning"
    assert matrix.rows[-1][1].endswith("*")
    slow = tables_of(many_methods.results(slow=("bitfit",)))["matrix"]
    (row,) = (row for row in slow.rows if row[0].endswith("BitFit"))
    assert all(cell.startswith("(") for cell in row[1:] if cell)


def test_many_that_have_not_learned_are_named_task_by_task() -> None:
    slow = ("bitfit", "ia3", "oft", "prefix", "adalora")
    found = findings(many_methods.results(slow=slow), [])["Does LoRA match full fine-tuning?"]
    assert found[0] == "On mnli have not learned: AdaLoRA, BitFit, IA3, OFT, Prefix tuning."


def test_recipes_are_described_with_their_citation() -> None:
    study = many_methods.results().study
    assert overview(study)["DoRA"] == "Liu et al. 2024 (DoRA), section 4"
    assert overview(study)["IA3"] == "peft type IA3, target modules key+value"
    assert overview(study)["BitFit"] == "weights biases"
    scores = tables_of(many_methods.results())["scores"]
    assert "DoRA (Liu et al. 2024 (DoRA), section 4)" in [row[0] for row in scores.rows]
