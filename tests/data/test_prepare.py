"""Cleaning and splitting lose nothing silently and keep texts and labels together."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import datasets
import pyarrow as pa
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from conftest import ROOT, full_disk, outcome, small_model
from peft_study.data.prepare import check_intermediate, clean, prepare, prepare_all, split, tokenise
from peft_study.data.sources import Row, opinions
from peft_study.data.sources import tables as files
from peft_study.data.sources.hub import DATASETS
from peft_study.data.tasks import TASKS, Task
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.pretrained import model_folder
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig, PrepareConfigs
from peft_study.training.batches import load_splits
from peft_study.training.packing import Batch, pack

POLARITY, RATING = TASKS["movie_polarity"], TASKS["tweet_rating"]
GLUE = ROOT.parent / "shared" / "glue"


def stage(name: str, task: Task, source: str, location: dict[str, Any]) -> PrepareConfig:
    """Return what the stage is asked to do of one task: all its rows, for the embedded encoder."""
    encoder = Encoder("minilm", None, None, ARCHITECTURES["bert"])
    return PrepareConfig(
        f"tasks.{name}", name, task, source, location, 0, None, None, encoder, {}, max_length=32
    )


def row(number: int, text: str, label: float | None, group: str | None = None) -> Row:
    return Row(str(number), group or str(number), (text,), label)


def placed(side: Literal["train", "validation"], *texts: str) -> list[Row]:
    """Return rows that their source has put on a side, with both labels in turn."""
    return [Row(f"{side}:{i}", f"{side}:{i}", (t,), i % 2, side) for i, t in enumerate(texts)]


def test_clean_counts_what_it_drops() -> None:
    rows = [row(0, "a", 1), row(1, "b", None), row(2, " ", 0), row(3, "a", 0), row(4, "c", -1)]
    kept, dropped = clean(rows, POLARITY)
    assert [r.id for r in kept] == ["0"]
    reasons = {"missing_label": 2, "empty_text": 1, "repeated_text": 1, "also_in_validation": 0}
    assert dropped == reasons


def test_official_splits_keep_their_rows_but_for_leaks() -> None:
    """Training rows that are held out too are dropped; repeats within a split are its own."""
    train = placed("train", "Good film!", "new", "good film", "New.", "GOOD, FILM", "new")
    held_out = placed("validation", "good film.", "other", "Other")
    for rows in (train + held_out, held_out + train):  # whichever comes first
        kept, dropped = clean(rows, POLARITY)
        assert [r for r in kept if r.split == "train"] == [train[1], train[3], train[5]]
        assert [r for r in kept if r.split == "validation"] == held_out
        assert sum(dropped.values()) == dropped["also_in_validation"] == 3


def test_a_pair_leaks_as_a_pair() -> None:
    """A text that is held out in another pair is no leak: WNLI and QQP are full of them.

    The same two sentences, swapped, are one: STS-B has four such pairs.
    """
    pairs = [("a", "b"), ("b", "a"), ("a", "c"), ("A", "B!"), ("B.", "A")]
    rows = [Row(f"train:{i}", str(i), pair, i % 2, "train") for i, pair in enumerate(pairs)]
    rows.append(Row("validation:0", "v", ("a", "b"), 1, "validation"))
    kept, dropped = clean(rows, TASKS["rte"])
    assert [r.id for r in kept] == ["train:2", "validation:0"]
    assert dropped["also_in_validation"] == 4


def test_texts_of_signs_alone_are_told_apart() -> None:
    rows = [*placed("train", ":-)", ":-(", "!!!", "\U0001f600"), *placed("validation", ":-(", "?")]
    kept, dropped = clean(rows, POLARITY)
    assert [r.texts[0] for r in kept] == [":-)", "!!!", "\U0001f600", ":-(", "?"]
    assert dropped["also_in_validation"] == 1


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
def config(archive: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareConfig:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    name, location = "editorial_polarity", {"archive": opinions.ARCHIVE, "sha256": opinions.SHA256}
    whole = stage(name, TASKS[name], "opinions", location)
    return replace(whole, train_rows=200, validation_rows=100, max_length=64)


def test_prepare_writes_the_same_bytes_twice(config: PrepareConfig, tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        prepare(config, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 3


def test_prepared_rows_are_the_sources_rows(config: PrepareConfig, tmp_path: Path) -> None:
    """Every prepared row decodes to its source's text and has its source's label."""
    prepare(config, tmp_path)
    rows = opinions.read_rows(config.task, config.definition, config.location)
    source = {r.id: r for r in rows}
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
    # Texts that differ in case, spaces and punctuation alone are one text.
    first_of_text: dict[str, Row] = {}
    for original in source.values():
        letters = "".join(c for c in original.texts[0].casefold() if c.isalnum())
        first_of_text.setdefault(letters or original.texts[0], original)
    assert summary["dropped"] == {
        "empty_text": 0,
        "repeated_text": len(source) - len(first_of_text),
        "missing_label": sum(r.label is None for r in first_of_text.values()),
        "also_in_validation": 0,
    }
    assert summary["dropped"]["missing_label"] > 0
    labels = stored["validation"]["label"]
    majority = 1 if sum(stored["train"]["label"]) > 100 else 0
    assert summary["baseline"]["accuracy"] == pytest.approx(list(labels).count(majority) / 100)


def test_one_class_only_is_an_error(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i, f"text {i}", 1) for i in range(800)]
    monkeypatch.setattr(opinions, "read_rows", lambda *_: iter(rows))
    with pytest.raises(StudyError, match=r"tasks\.editorial_polarity: the train split holds one"):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Official splits, from files ----------------------------------------------------------------


def own(
    folder: Path, train: list[tuple[str, Any]], held_out: list[tuple[str, Any]]
) -> PrepareConfig:
    """Write texts and labels as TSV; return the configuration of their stage."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("held_out", held_out)):
        lines = "".join(f"{text}\t{label}\n" for text, label in rows)
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + lines, encoding="utf-8", newline="")
    task = Task(("text",), ("bad", "good", "mixed"), ("accuracy",))
    if any(isinstance(label, float) for _, label in train):
        task = Task(("text",), None, ("pearson", "spearman"))
    mapping: dict[str, Any] = {"train": "train.tsv", "validation": "held_out.tsv"}
    mapping |= {"texts": ["text"], "label": "label"}
    return stage("own", task, "files", files.locate("own", task, str(folder), mapping))


WORDS = ("apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer", "island")
DISTINCT = [f"the {a} and the {b}" for a in WORDS for b in WORDS if a != b]


def labelled(texts: list[str]) -> list[tuple[str, str]]:
    return [(text, ("good", "bad")[i % 2]) for i, text in enumerate(texts)]


def test_all_rows_of_official_splits_are_kept_but_for_leaks(tmp_path: Path) -> None:
    train, held_out = labelled(DISTINCT[:40]), labelled(DISTINCT[40:70])
    leaks = [("The apple; and THE BRIDGE!", "good")]  # the first training text, spelt otherwise
    config = own(tmp_path, [*train, *train[:5]], [*held_out, *leaks])
    summary = prepare(config, tmp_path / "out")
    # Both copies of the leaking row go; the four other repeats stay.
    assert summary["splits"]["train"]["rows"] == 45 - 2
    assert summary["splits"]["validation"]["rows"] == 31
    assert summary["dropped"]["also_in_validation"] == sum(summary["dropped"].values()) == 2


def test_texts_that_read_the_same_once_cut_are_leaks(tmp_path: Path) -> None:
    start = "one two three four five six"
    train = [*labelled(DISTINCT[:30]), (f"{start} seven eight", "good")]
    held_out = [*labelled(DISTINCT[40:60]), (f"{start} nine ten", "bad")]
    config = own(tmp_path, train, held_out)
    assert prepare(config, tmp_path / "long")["splits"]["train"]["rows"] == 31
    summary = prepare(replace(config, max_length=8), tmp_path / "short")
    assert summary["splits"]["train"]["rows"] == 30
    assert summary["dropped"]["also_in_validation"] == 1


@pytest.mark.parametrize(("shared", "fails"), [(2, False), (3, True), (20, True)])
def test_more_than_a_tenth_of_the_validation_split_shared_is_an_error(
    tmp_path: Path, shared: int, fails: bool
) -> None:
    held_out = labelled(DISTINCT[40:60])
    config = own(tmp_path / "data", [*labelled(DISTINCT[:40]), *held_out[:shared]], held_out)
    if not fails:
        assert prepare(config, tmp_path / "out")["dropped"]["also_in_validation"] == shared
        return
    named = rf"tasks\.own: {shared} of the 20 rows of the validation split stand in the training"
    with pytest.raises(StudyError, match=named):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("repeated", [["thanks", "ok"], ["Thanks!", "THANKS", "ok."], ["ok"]])
def test_the_share_is_of_held_out_rows_however_often_training_rows_repeat_them(
    tmp_path: Path, repeated: list[str]
) -> None:
    """Two of 32 held-out rows stand in the training rows, forty times each."""
    held_out = labelled([*DISTINCT[40:70], "thanks", "ok"])
    train = labelled([*DISTINCT[:40], *repeated * (80 // len(repeated))])
    summary = prepare(own(tmp_path / "data", train, held_out), tmp_path / "out")
    assert summary["splits"]["train"]["rows"] == 40
    assert summary["splits"]["validation"]["rows"] == 32
    assert summary["dropped"]["also_in_validation"] == len(train) - 40


def test_the_share_is_of_held_out_rows_once_texts_are_cut(tmp_path: Path) -> None:
    start = "one two three four five six"
    train = labelled([*DISTINCT[:30], *(f"{start} {word}" for word in WORDS)])
    held_out = labelled([*DISTINCT[40:60], f"{start} zebra"])
    config = replace(own(tmp_path, train, held_out), max_length=8)
    assert prepare(config, tmp_path / "out")["dropped"]["also_in_validation"] == len(WORDS)


def test_training_rows_without_a_label_count_as_none(tmp_path: Path) -> None:
    held_out = labelled(DISTINCT[40:60])
    unlabelled = [(text, "-") for text, _ in held_out]
    config = own(tmp_path / "data", [*labelled(DISTINCT[:40]), *unlabelled], held_out)
    assert prepare(config, tmp_path / "out")["splits"]["train"]["rows"] == 40


def test_the_share_is_of_all_that_could_be_held_out(tmp_path: Path) -> None:
    """One row in thirty is shared, whether few of the thirty are drawn or all."""
    held_out = labelled(DISTINCT[40:70])
    config = own(tmp_path / "data", [*labelled(DISTINCT[:40]), held_out[3]], held_out)
    for rows in (None, 9):
        summary = prepare(replace(config, validation_rows=rows), tmp_path / f"out-{rows}")
        assert summary["splits"]["validation"]["rows"] == (rows or 30)
        assert summary["splits"]["train"]["rows"] == 40


# --- Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(lambda n: 1_700_000_000.0 + n, id="seconds since 1970"),
        pytest.param(lambda n: 16_777_216.0 + n, id="just beyond what float32 counts"),
        pytest.param(lambda n: 1e6 + n / 100, id="cents of a million"),
        pytest.param(lambda n: 5.0 + n * 1e-8, id="close to one another"),
        pytest.param(lambda n: n * 1e-47, id="next to nothing"),
        pytest.param(lambda n: -(2.0**36) - n, id="negative"),
    ],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_scores_that_float32_does_not_tell_apart_are_named(
    tmp_path: Path, score: Any, held_out: bool
) -> None:
    odd = [(text, score(n)) for n, text in enumerate(DISTINCT[:40])]
    even = [(text, n / 4) for n, text in enumerate(DISTINCT[40:])]
    config = own(tmp_path / "data", *((even, odd) if held_out else (odd, even)))
    split = "validation" if held_out else "train"
    named = rf"^tasks\.own: the {split} split has scores from \S+ to \S+, which float32"
    with pytest.raises(StudyError, match=named):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "score",
    [lambda n: 1e6 + n, lambda n: n / 3, lambda n: 1e12 * (n - 20) / 60, lambda n: n * 1e-9],
)
def test_scores_that_float32_tells_apart_are_kept(tmp_path: Path, score: Any) -> None:
    rows = [(text, float(score(n))) for n, text in enumerate(DISTINCT[:40])]
    others = [(text, float(score(n))) for n, text in enumerate(DISTINCT[30:])][10:]
    summary = prepare(own(tmp_path / "data", rows, others), tmp_path / "out")
    assert summary["splits"]["train"]["labels"]["max"] == score(39)


@pytest.mark.parametrize("score", ["1e25", "-1e13", "1e400"])
def test_scores_whose_squares_overflow_are_named(tmp_path: Path, score: str) -> None:
    rows: list[tuple[str, Any]] = [(text, float(n)) for n, text in enumerate(DISTINCT[:40])]
    with pytest.raises(
        StudyError, match=rf"train\.tsv line 42: score '{score}' is not a number from"
    ):
        own(tmp_path / "data", [*rows, ("large", score)], rows)


# --- Files that cannot be written ----------------------------------------------------------------


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    """Here no file may be longer than 1,000 bytes, which the system says as it says of a disk."""
    config = own(tmp_path / "data", labelled(DISTINCT[:60]), labelled(DISTINCT[60:]))
    configs = PrepareConfigs({"own": config}, None, ())
    with full_disk():
        found = outcome(lambda: prepare_all(configs, tmp_path / "out", tmp_path / "intermediate"))
    assert re.fullmatch(rf"{tmp_path}/out\S*: File too large", str(found))


@pytest.mark.parametrize("named", [True, False])
def test_what_the_system_says_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    config = own(tmp_path / "data", labelled(DISTINCT[:40]), labelled(DISTINCT[40:]))
    error = OSError(28, "No space left on device", *(["disk/file"] if named else []))
    monkeypatch.setattr(datasets.DatasetDict, "save_to_disk", Mock(side_effect=error))
    configs = PrepareConfigs({"own": config}, None, ())
    found = outcome(lambda: prepare_all(configs, tmp_path / "out", tmp_path / "intermediate"))
    assert str(found) == f"{'disk/file' if named else tmp_path / 'out'}: No space left on device"


def test_a_file_where_a_folder_is_to_be(tmp_path: Path) -> None:
    config = own(tmp_path / "data", labelled(DISTINCT[:40]), labelled(DISTINCT[40:]))
    (tmp_path / "out").write_text("")
    configs = PrepareConfigs({"own": config}, None, ())
    found = outcome(lambda: prepare_all(configs, tmp_path / "out", tmp_path / "intermediate"))
    assert re.fullmatch(rf"{tmp_path}/out\S*: (Not a directory|File exists)", str(found))


# --- Labels stay with their texts -----------------------------------------------------------------

# Whatever a line of TSV can hold. The first letters make every text another one.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=40)
MARKS = [f"{a}{b}" for a in "kqxz" for b in "bcdfghjlmnprstvw"]


def assert_together(config: PrepareConfig, directory: Path, rows: dict[str, Any]) -> None:
    """Check every row of both splits, as a batch for the model, against its line of the file.

    Args:
        config: the stage's configuration.
        directory: what it wrote.
        rows: text and label by id, from whoever wrote the files.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm"))
    model = small_model("bert")
    for found in load_splits(directory):
        order = list(reversed(range(len(found))))  # as good as any other
        batch = pack(found, order, model)
        assert isinstance(batch, Batch)
        for place, number in enumerate(order):
            text, label = rows[found.ids[number]]
            if isinstance(label, str):
                assert (config.definition.labels or ())[int(found.labels[number])] == label
            else:
                assert float(found.labels[number]) == pytest.approx(label)
            expected = tokenizer(text, truncation=True, max_length=32)["input_ids"]
            begin = int(batch.first[place])
            tokens = batch.inputs["input_ids"][0, begin : begin + len(expected)].tolist()
            assert tokens == expected


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=12, max_size=30),
    labels=st.one_of(
        st.lists(st.sampled_from(("bad", "good", "mixed")), min_size=30, max_size=30),
        st.lists(st.floats(-1e3, 1e3), min_size=30, max_size=30),
    ),
)
def test_every_text_reaches_the_batch_with_its_own_label(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], labels: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("own")
    marked = [f"{mark} {text}" for mark, text in zip(MARKS, texts, strict=False)]
    rows = list(zip(marked, labels, strict=False))
    half = len(rows) // 2
    assume(all(len({label for _, label in part}) > 1 for part in (rows[:half], rows[half:])))
    config = own(folder, rows[:half], rows[half:])
    summary = prepare(config, folder / "out")
    assert summary["splits"]["train"]["rows"] == half
    by_id = {f"train:{i + 2}": row for i, row in enumerate(rows[:half])}
    by_id |= {f"validation:{i + 2}": row for i, row in enumerate(rows[half:])}
    assert_together(config, folder / "out", by_id)


TOKENISE = "peft_study.data.prepare.tokenise"


def assert_stops(config: PrepareConfig, folder: Path, named: str) -> None:
    """Check that the stage ends with an error, and nothing says that it has finished."""
    with pytest.raises(RuntimeError, match=named):
        prepare(config, folder / "out")
    assert not (folder / "out/summary.json").exists()


def shifted(table: pa.Table, column: str, by: int) -> pa.Table:
    """Take a column out and put it back against other rows, as a wrong index does."""
    order = [(row + by) % len(table) for row in range(len(table))]
    moved = table[column].take(order)
    return table.set_column(table.column_names.index(column), column, moved)


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(
    ("column", "named"),
    [
        # A published study put its labels back against other rows after tokenising in batches;
        # its models trained on noise, and Pearson's correlation stayed at 0.07.
        ("label", r"row \w+:\d+ has label .*, its source"),
        ("input_ids", r"row \w+:\d+ is not its source's text"),
        ("id", r"row \w+:\d+ (has label|is not its source's text)"),
    ],
)
@pytest.mark.parametrize("by", [1, 7, -1])
def test_labels_shuffled_against_texts_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int, column: str, named: str, scores: bool
) -> None:
    def labels(texts: list[str]) -> list[tuple[str, Any]]:
        if scores:
            return [(text, i / 8) for i, text in enumerate(texts)]
        return [(text, ("bad", "good", "good", "mixed")[i % 4]) for i, text in enumerate(texts)]

    config = own(tmp_path / "data", labels(DISTINCT[:40]), labels(DISTINCT[40:]))
    monkeypatch.setattr(TOKENISE, lambda *given: shifted(tokenise(*given), column, by))
    assert_stops(config, tmp_path, named)


def exchanged(table: pa.Table) -> pa.Table:
    labels = table["label"].to_pylist()
    first, second = labels.index(0), labels.index(1)
    labels[first], labels[second] = labels[second], labels[first]
    return table.set_column(table.column_names.index("label"), "label", pa.array(labels))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(exchanged, r"row train:\d+ has label", id="one pair of labels exchanged"),
        pytest.param(lambda table: table.slice(0, 31), "rows were lost", id="rows that vanish"),
    ],
)
def test_a_table_that_is_not_its_sources_stops_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, named: str
) -> None:
    config = own(tmp_path / "data", labelled(DISTINCT[:40]), labelled(DISTINCT[40:]))
    monkeypatch.setattr(TOKENISE, lambda *given: change(tokenise(*given)))
    assert_stops(config, tmp_path, named)


# --- The real data ----------------------------------------------------------------------------


@pytest.mark.skipif(not GLUE.is_dir(), reason=f"{GLUE} is not there")
@pytest.mark.parametrize("name", [name for name, of in DATASETS.items() if of.dropped is not None])
def test_the_table_of_datasets_says_how_many_training_rows_are_dropped(name: str) -> None:
    task, dataset = TASKS[name], DATASETS[name]
    found = list(files.read_rows(name, task, files.locate(name, task, str(GLUE), None)))
    training = [row for row in found if row.split == "train"]
    kept, dropped = clean(found, task)
    assert len(training) == dataset.train_rows
    assert len(training) - sum(row.split == "train" for row in kept) == dataset.dropped
    assert sum(dropped.values()) == dropped["also_in_validation"]


@pytest.mark.skipif(not GLUE.is_dir(), reason=f"{GLUE} is not there")
def test_the_whole_of_sst2_is_prepared(tmp_path: Path) -> None:
    task = TASKS["sst2"]
    config = stage("sst2", task, "files", files.locate("sst2", task, str(GLUE), None))
    whole = PrepareConfigs({"sst2": replace(config, max_length=66)}, None, ())
    write_json(tmp_path / "configs/prepare.json", whole)
    command = [sys.executable, str(ROOT / "stages/prepare.py")]
    variables = {"PYTHONPATH": str(ROOT / "src"), "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | variables
    )
    assert (result.returncode, result.stderr) == (0, "")
    summary = read_json(tmp_path / "data/prepared/sst2/summary.json")
    rows = {name: part["rows"] for name, part in summary["splits"].items()}
    dropped = summary["dropped"]
    leaks = dropped["also_in_validation"]
    assert rows == {"train": 67_349 - leaks, "validation": 872}
    assert sum(dropped.values()) == leaks
    assert 5 <= leaks < 20
    assert summary["splits"]["validation"]["labels"] == {"negative": 428, "positive": 444}


def test_the_intermediate_task_may_not_train_on_held_out_rows(tmp_path: Path) -> None:
    def save(name: str, train: list[list[int]], validation: list[list[int]]) -> Path:
        tables = (datasets.Dataset(pa.table({"input_ids": rows})) for rows in (train, validation))
        splits = dict(zip(("train", "validation"), tables, strict=True))
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / name))
        return tmp_path / name

    intermediate = save("intermediate", [[1, 2], [3, 4]], [[5, 6]])
    sound = save("sound", [[1, 2]], [[5, 6]])
    leaking = save("leaking", [[7, 8]], [[9, 9], [3, 4]])
    check_intermediate(intermediate, {"sound": sound})
    check_intermediate(tmp_path / "nothing is there", {})
    with pytest.raises(StudyError, match="trains on 1 rows that task 'leaking' holds out"):
        check_intermediate(intermediate, {"sound": sound, "leaking": leaking})
