"""The ledger as it is read: sentences, tables, a figure, the page, and the stage that writes it."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builders
import made_up
from conftest import ROOT
from peft_study.files import read_record, write_json
from peft_study.findings.figures import figures
from peft_study.findings.figures.figure import render_svg, specification
from peft_study.findings.page.ledger import HANGS, ledger_sentences
from peft_study.findings.page.papers import papers_tables
from peft_study.findings.page.render import render
from peft_study.findings.page.tables import tables
from peft_study.findings.page.words import findings
from peft_study.findings.results import load_ids, load_ledger, load_values
from peft_study.findings.rows import write_rows
from peft_study.records.scores import Cell, Chance
from peft_study.records.variants import (
    Effect,
    Ledger,
    LedgerEntry,
    MissingVariant,
    NotAdditive,
    PublishedGap,
    Share,
    VariantRuns,
)

MINUS = "\N{MINUS SIGN}"
CHANCE = Chance(0.0, 5, 277, 0.1, 0.1, 0.1)


def effect(mean: float, *settings: str, p: float | None = 0.001, **changes: Any) -> Effect:
    """Return an effect of five seeds, and the interval of two points around it."""
    found: dict[str, Any] = {"n": 5, "mean": mean, "margin": 0.02, "chance": CHANCE, "p_holm": p}
    found |= {"low": mean - 0.02, "high": mean + 0.02, "method": "lora", "task": "rte"}
    found |= {"metric": "accuracy", "evaluation": "cross_fitted", "settings": settings}
    found |= {"kind": "alone" if len(settings) == 1 else "pair"}
    return Effect(**(found | changes))


BEYOND = NotAdditive(5, -0.001, 0.02, -0.03, 0.028, 0.9, chance=CHANCE, p_holm=0.9)
GAP = PublishedGap(
    method="lora",
    task="rte",
    metric="accuracy",
    citation="Hu et al. 2021, table 2",
    note=None,
    published=0.866,
    ours=0.776,
    n=5,
    gap=0.09,
    low=0.08,
    high=0.1,
    shares=(
        Share("alone", ("the MNLI start",), 0.081, 0.069, 0.094, 0.9, 0.77, 1.04),
        Share("alone", ("alpha 8",), 0.001, -0.01, 0.012, 0.01, -0.1, 0.12),
    ),
    names=("the MNLI start",),
    best=("the MNLI start",),
    unexplained=0.009,
    unexplained_low=-0.002,
    unexplained_high=0.02,
)
LEDGER = Ledger(
    effects=(
        effect(0.079, "the MNLI start"),
        effect(0.001, "alpha 8", p=1.0),
        effect(-0.03, "length 64", p=0.01),
        effect(-0.2, "rate 1", unlearned=("variant",)),
        effect(0.07, "the MNLI start", "length 64", beyond=BEYOND),
    ),
    gaps=(GAP,),
    nothing=(LedgerEntry("lora", "rte", "alone", ("bottleneck 4",), None),),
    missing=(MissingVariant("lora", "rte", ("rate 9",), "seed 3: the loss is nan"),),
)
STUDY = builders.study(metrics={"rte": "accuracy"})


def said(found: Ledger) -> str:
    return "\n".join(ledger_sentences(builders.results(STUDY, ledger=found)))


@pytest.mark.parametrize(
    "sentence",
    [
        "Of the 9.0 points by which LoRA (ours) is below Hu et al. 2021, table 2 on rte, the MNLI "
        "start explains 8.1 (6.9 to 9.4), 90% (77% to 104%) of it; alpha 8 nothing that 5 seeds "
        "can see.",
        f"With the MNLI start changed: 0.9 points ({MINUS}0.2 to 2.0) remain unexplained.",
        f"each setting alone: length 64 {MINUS}3.0 points ({MINUS}5.0 to {MINUS}1.0).",
        f"rate 1: has not learned; {MINUS}20.0 points",
        f"the MNLI start and length 64 together: +7.0 points (+5.0 to +9.0), {MINUS}0.1 beyond",
        "effects add up as far as 5 seeds can see",
        "bottleneck 4: nothing to change in LoRA (ours) on rte.",
        "Without results: rate 9, LoRA (ours) on rte: seed 3: the loss is nan.",
    ],
)
def test_the_sentences_of_a_ledger(sentence: str) -> None:
    assert sentence in said(LEDGER)


def test_the_words_of_a_gap_follow_its_sign_and_its_certainty() -> None:
    up = Share("alone", ("the MNLI start",), -0.081, -0.094, -0.069, 0.9, 0.77, 1.04)
    about: dict[str, Any] = {"gap": -0.09, "low": -0.1, "high": -0.08, "unexplained": -0.009}
    about |= {"shares": (up,), "unexplained_low": -0.02, "unexplained_high": 0.002}
    found = said(replace(LEDGER, gaps=(replace(GAP, **about),)))
    assert "9.0 points by which LoRA (ours) is above Hu et al." in found
    assert "the MNLI start explains 8.1 (6.9 to 9.4), 90% (77% to 104%) of it" in found
    assert f"0.9 points ({MINUS}0.2 to 2.0) remain" in found
    unsure = replace(GAP, low=-0.01, shares=(), names=(), best=())
    found = said(replace(LEDGER, gaps=(unsure,)))
    assert f"not told from zero (95% interval {MINUS}1.0 to +10.0)" in found
    assert "explains" not in found
    assert "alpha 8 changes nothing that 5 seeds can see." in found
    none = replace(GAP, names=(), best=(), unexplained=0.09)
    found = said(replace(LEDGER, gaps=(none,), effects=LEDGER.effects[1:2]))
    assert "on rte, alpha 8 explains nothing that 5 seeds can see." in found
    assert "No setting goes that way: 9.0 points" in found


def test_what_does_not_add_up_and_what_decides_nothing_is_said() -> None:
    less = replace(BEYOND, mean=-0.04, low=-0.06, high=-0.02, p_holm=0.01)
    both = effect(0.07, "a", "b", beyond=less)
    neither = effect(0.01, "c", p=None, unlearned=("study", "variant"))
    found = said(Ledger((both, neither), ()))
    assert "4.0 points less than the sum of what they change alone" in found
    assert "effects do not add up" in found
    assert "c: decides nothing, for neither it nor the study as it stands has learned" in found


def test_the_page_has_a_ledger_only_where_the_study_has_one() -> None:
    for found in (LEDGER, None):
        results = made_up.results(ledger=found)
        html = render(results, made_up.CLAIMS, made_up.PUBLISHED, [], {})
        assert ('href="#ledger"' in html) == ('id="ledger"' in html) == (found is not None)
        assert ("metrics/ledger.json" in html) == (found is not None)
        assert (HANGS in findings(results, [])) == (found is not None)
        assert any(t.rows for t in tables(results, [])["ledger"]) == (found is not None)
        assert ("ledger.md" in papers_tables(results, [])) == (found is not None)


def test_the_tables_tell_effects_shares_and_what_has_no_results() -> None:
    texts = papers_tables(builders.results(STUDY, ledger=LEDGER), [])
    rows = texts["ledger.md"].splitlines()
    start = "| rte, LoRA (ours): the MNLI start | +7.9 | +5.9 to +9.9 | 5 | 0.001 | – | – |"
    assert any(row.startswith(start) for row in rows)
    pair = f"+7.0 | +5.0 to +9.0 | 5 | 0.001 | {MINUS}0.1 | {MINUS}3.0 to +2.8 |"
    assert any(pair in row for row in rows)
    for note in ("has not learned", "changes nothing here", "no results: seed 3: the loss is nan"):
        assert note in texts["ledger.md"]
    gaps = texts["ledger_gaps.md"]
    assert "+8.1 | +6.9 to +9.4 | 90 | 77 to 104 | explains it |" in gaps
    assert f"unexplained | +0.9 | {MINUS}0.2 to +2.0 | – | – | after the MNLI start |" in gaps


def test_the_figure_sorts_effects_and_draws_the_gap() -> None:
    results = builders.results(STUDY, ledger=LEDGER)
    (figure,) = (of for of in figures(results, []) if of.name == "ledger")
    by_kind = [row["kind"] for row in figure.rows]
    assert (by_kind.count("alone"), by_kind.count("combined"), by_kind.count("gap")) == (4, 1, 1)
    drawn = str(specification(figure))
    order = ["rate 1", "the MNLI start", "the MNLI start + length 64", "length 64", "alpha 8"]
    assert f"'sort': {order}" in drawn
    assert "[5, 4]" in drawn
    assert "+9.0 (Hu et al. 2021, table 2)" in figure.caption
    assert f"{MINUS}20.0 points, of rate 1" in figure.alt
    assert "Open shapes" in figure.caption
    assert "<svg" in render_svg(figure)
    plain = replace(LEDGER, gaps=(), effects=LEDGER.effects[:2])
    (figure,) = (of for of in figures(builders.results(STUDY, ledger=plain), []))
    assert "dash" not in figure.subtitle.lower() + figure.caption.lower()
    assert "[5, 4]" not in str(specification(figure))
    many = [replace(of, task=f"task {n}") for n in range(9) for of in LEDGER.effects[:2]]
    (figure,) = figures(
        builders.results(STUDY, ledger=Ledger((*many, effect(0.1, "a")), (GAP,))), []
    )
    assert len(figure.panels) == 8
    assert "rte" in {row["task"] for row in figure.rows}
    assert "in the table: LoRA (ours) on task 7, LoRA (ours) on task 8." in figure.caption


def test_the_claims_stage_writes_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics, found = Path("metrics"), made_up.results()
    write_json(Path("configs/report.json"), found.study)
    for name in ("statistics", "iso_accuracy", "parity", "profile"):
        write_json(metrics / f"{name}.json", getattr(found, name))
    for name in ("stability", "curves", "sweep", "sweep_curves"):
        write_json(metrics / f"{name}.json", [])
    write_json(metrics / "runs/variants.json", VariantRuns({}))
    stage = str(ROOT / "stages/claims.py")
    runpy.run_path(stage)["main"]()
    assert Path("metrics/ledger.json").read_text() == "null\n"
    assert load_ledger() is None

    cells: dict[str, Cell] = {}
    entries: list[LedgerEntry] = []
    for place, score in (("lora/as it is", 0.70), ("lora/a", 0.72)):
        scores = [score - 0.01, score, score + 0.01]
        cells[place] = builders.cell("lora", "film_review", *scores, variant=place)
        rows = {("accuracy", seed): of for seed, of in _rows(cells[place]).items()}
        ids = [str(number) for number in range(400)]
        write_rows(metrics / f"rows/variants/{place}.parquet", ids, rows)
        about = "lora", "film_review"
        alone = LedgerEntry(*about, "alone", ("a",), place)
        entries.append(alone if entries else LedgerEntry(*about, "study", (), place))
    write_json(metrics / "runs/variants.json", VariantRuns(cells, tuple(entries)))
    assert load_ids(cells["lora/a"]) == ids
    assert load_values(cells["lora/a"])["accuracy"].mean() == pytest.approx(0.72)
    runpy.run_path(stage)["main"]()
    written = load_ledger()
    assert written is not None
    assert [(of.settings, of.n, of.mean) for of in written.effects] == [
        (("a",), 3, pytest.approx(0.02))
    ]
    assert written == read_record(metrics / "ledger.json", Ledger)


def _rows(cell: Cell) -> dict[str, Any]:
    return dict(zip(cell.seeds, np.array(builders.values(cell)["accuracy"]), strict=True))
