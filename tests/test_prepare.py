"""Cleaning and splitting lose nothing silently and keep texts and labels together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import assume, given, note
from hypothesis import strategies as st
from transformers import AutoTokenizer

from peft_study.architectures import model_folder
from peft_study.errors import StudyError
from peft_study.prepare import clean, prepare, split
from peft_study.sources import Row, opinions
from peft_study.tasks import TASKS

POLARITY, RATING = TASKS["movie_polarity"], TASKS["tweet_rating"]


def row(number: int, text: str, label: float | None, group: str | None = None) -> Row:
    return Row(str(number), group or str(number), (text,), label)


def test_clean_counts_what_it_drops() -> None:
    rows = [row(0, "a", 1), row(1, "b", None), row(2, " ", 0), row(3, "a", 0), row(4, "c", -1)]
    kept, dropped = clean(rows, POLARITY)
    assert [r.id for r in kept] == ["0"]
    assert dropped == {"missing_label": 2, "empty_text": 1, "repeated_text": 1}


def test_minus_one_is_a_score_where_labels_are_scores() -> None:
    kept, _ = clean([row(0, "a", -1.0)], RATING)
    assert kept[0].label == -1.0


@given(
    groups=st.lists(st.integers(0, 40), min_size=150, max_size=200),
    seed=st.integers(0, 3),
    missing=st.sets(st.integers(0, 199)),
)
def test_splits_share_no_row_and_no_group(groups: list[int], seed: int, missing: set[int]) -> None:
    rows = [row(i, f"text {i}", 1, group=str(g)) for i, g in enumerate(groups)]
    try:
        train, held_out = split(rows, None, 2, seed)
        # Another task on the same texts, with other rows missing and another number wanted.
        others = split([r for r in rows if int(r.id) not in missing], None, 1, seed)
    except StudyError as error:
        note(str(error))
        assume(False)
    assert len(held_out) == 2
    for one in (train, others[0]):
        for two in (held_out, others[1]):
            assert {r.group for r in one}.isdisjoint(r.group for r in two)
    assert {r.id for r in train}.isdisjoint(r.id for r in held_out)
    assert (train, held_out) == split(rows, None, 2, seed)


def test_a_share_of_the_groups_is_held_out() -> None:
    rows = [row(i, str(i), 1) for i in range(5000)]
    train, held_out = split(rows, None, 900, seed=0)
    assert len(held_out) == 900
    assert 0.78 < len(train) / len(rows) < 0.82
    assert len(split(rows, 100, 900, seed=0)[0]) == 100


def test_too_few_rows() -> None:
    rows = [row(i, str(i), 1) for i in range(90)]
    with pytest.raises(StudyError, match=r"train_rows: got 90; must be at most the \d+ that are"):
        split(rows, 90, 2, 0)
    with pytest.raises(StudyError, match=r"validation_rows: got 80; must be at most the \d+"):
        split(rows, 10, 80, 0)


@pytest.fixture
def config(archive: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    return {
        "key": "tasks.editorial_polarity",
        "task": "editorial_polarity",
        "task_definition": asdict(TASKS["editorial_polarity"]),
        "source": "opinions",
        "split_seed": 0,
        "train_rows": 200,
        "validation_rows": 100,
        "model": "minilm",
        "max_length": 64,
    }


def test_prepare_writes_the_same_bytes_twice(config: dict[str, Any], tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        prepare(config, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 3


def test_prepared_rows_are_the_sources_rows(config: dict[str, Any], tmp_path: Path) -> None:
    """Every prepared row decodes to its source's text and has its source's label."""
    prepare(config, tmp_path)
    source = {r.id: r for r in opinions.read_rows(config["task"])}
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm"))
    stored = datasets.load_from_disk(str(tmp_path))
    groups = {}
    for name in ("train", "validation"):
        for prepared in stored[name]:
            original = source[prepared["id"]]
            expected = tokenizer(original.texts[0], truncation=True, max_length=64)
            assert prepared["input_ids"] == expected["input_ids"]
            assert prepared["label"] == original.label
        groups[name] = {source[identity].group for identity in stored[name]["id"]}
    assert groups["train"].isdisjoint(groups["validation"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["splits"]["train"]["rows"] == 200
    first_of_text: dict[tuple[str, ...], Row] = {}
    for original in source.values():
        first_of_text.setdefault(original.texts, original)
    assert summary["dropped"] == {
        "empty_text": 0,
        "repeated_text": len(source) - len(first_of_text),
        "missing_label": sum(r.label is None for r in first_of_text.values()),
    }
    assert summary["dropped"]["missing_label"] > 0
    labels = stored["validation"]["label"]
    majority = 1 if sum(stored["train"]["label"]) > 100 else 0
    assert summary["baseline"]["accuracy"] == pytest.approx(list(labels).count(majority) / 100)


def test_one_class_only_is_an_error(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i, f"text {i}", 1) for i in range(800)]
    monkeypatch.setattr("peft_study.prepare.read_rows", lambda *_: iter(rows))
    with pytest.raises(StudyError, match=r"tasks\.editorial_polarity: the train split holds one"):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
