"""GLUE's folder as it is distributed, and files of one's own: every row, with its own label."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from peft_study.data.prepare import clean
from peft_study.data.sources import Row
from peft_study.data.sources import tables as files
from peft_study.data.tasks import TASKS, Task
from peft_study.data.texts import is_empty
from peft_study.errors import StudyError

GLUE = ROOT.parent / "shared" / "glue"

Table = list[list[str]]


def tsv(rows: Table, end: str = "\n") -> bytes:
    return "".join("\t".join(row) + end for row in rows).encode()


def write(root: Path, contents: dict[str, bytes]) -> str:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def read(name: str, folder: str, task: Task | None = None, mapping: Any = None) -> list[Row]:
    """Read a task from its files, as its stages do."""
    task = task or TASKS[name]
    location = files.locate(name, task, folder, mapping)
    json.dumps(location)  # it goes into a configuration file
    return list(files.read_rows(name, task, location))


def plain(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Return what a row says, without the line that it stands in."""
    return [(row.split, *row.texts, row.label) for row in rows]


RTE_HEADER = ["index", "sentence1", "sentence2", "label"]
RTE_TRAIN = [
    ["0", "It rained.", "It was wet.", "entailment"],
    ["1", "It rained.", "It was dry.", "not_entailment"],
]
RTE_DEV = [["0", "She sang.", "She was silent.", "not_entailment"]]
RTE_ROWS = [
    ("train", "It rained.", "It was wet.", 0),
    ("train", "It rained.", "It was dry.", 1),
    ("validation", "She sang.", "She was silent.", 1),
]


def glue(root: Path, name: str, **splits: bytes | Table) -> str:
    """Write files of a task's folder of GLUE, of these contents or rows."""
    contents = {}
    for split, rows in splits.items():
        contents[f"{name}/{split}.tsv"] = rows if isinstance(rows, bytes) else tsv(rows)
    return write(root, contents)


def rte(root: Path, **contents: bytes) -> str:
    """Write a small RTE folder; `train` and `dev` replace its files' contents."""
    whole = {"train": tsv([RTE_HEADER, *RTE_TRAIN]), "dev": tsv([RTE_HEADER, *RTE_DEV])}
    return glue(root, "RTE", **whole | contents)


def test_cola_has_no_header(tmp_path: Path) -> None:
    train = [["gj04", "1", "", "They left."], ["cj99", "0", "*", "Left they the."]]
    rows = read("cola", glue(tmp_path, "CoLA", train=train, dev=[["gj04", "1", "", "She slept."]]))
    assert plain(rows) == [
        ("train", "They left.", 1),
        ("train", "Left they the.", 0),
        ("validation", "She slept.", 1),
    ]
    assert [row.id for row in rows] == ["train:1", "train:2", "validation:1"]


def test_sst2(tmp_path: Path) -> None:
    header = ["sentence", "label"]
    train, dev = [["a bore ", "0"], ["a charm ", "1"]], [["it 's fine . ", "1"]]
    # Texts are as they stand, the space at their end included.
    folder = glue(tmp_path, "SST-2", train=[header, *train], dev=[header, *dev])
    assert plain(read("sst2", folder)) == [
        ("train", "a bore ", 0),
        ("train", "a charm ", 1),
        ("validation", "it 's fine . ", 1),
    ]


def test_rte_names_its_labels(tmp_path: Path) -> None:
    rows = read("rte", rte(tmp_path))
    assert plain(rows) == RTE_ROWS
    # A row's id leads to the line of its text.
    assert [row.id for row in rows] == ["train:2", "train:3", "validation:2"]
    assert len({row.group for row in rows}) == 3


def test_qnli_names_its_labels(tmp_path: Path) -> None:
    header = ["index", "question", "sentence", "label"]
    train = [["0", "Who?", "Ada did.", "entailment"], ["1", "Why?", "At noon.", "not_entailment"]]
    folder = glue(tmp_path, "QNLI", train=[header, *train], dev=[header, train[1]])
    assert plain(read("qnli", folder)) == [
        ("train", "Who?", "Ada did.", 0),
        ("train", "Why?", "At noon.", 1),
        ("validation", "Why?", "At noon.", 1),
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte order mark"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda text: text.rstrip(b"\n"), id="no newline at the end"),
        pytest.param(lambda text: text + b"\n\n", id="empty lines at the end"),
    ],
)
def test_how_lines_end_changes_no_row(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    train, dev = (change(tsv([RTE_HEADER, *rows])) for rows in (RTE_TRAIN, RTE_DEV))
    assert plain(read("rte", rte(tmp_path, train=train, dev=dev))) == RTE_ROWS


@pytest.mark.parametrize(
    "text",
    [
        '" He left .',  # MRPC and QNLI are full of quotes that nothing closes
        'the "best" film',
        '""',
        "a\u2028b\x0bc\x85d\x1ce",  # ends of lines to Python, not to the file
        "a\rb",
        "\ufeffmark",
        "naïve 🙂 ß",
        "back\\slash \\t",
    ],
)
def test_a_text_is_what_stands_between_the_tabs(tmp_path: Path, text: str) -> None:
    dev = tsv([RTE_HEADER, ["0", text, "x", "entailment"], ["1", "y", text, "not_entailment"]])
    rows = read("rte", rte(tmp_path, dev=dev))
    assert plain(rows)[2:] == [("validation", text, "x", 0), ("validation", "y", text, 1)]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    dev = tsv([["label", "sentence2", "x", "sentence1"], ["entailment", "second", "?", "first"]])
    assert plain(read("rte", rte(tmp_path, dev=dev)))[-1] == ("validation", "first", "second", 0)


MRPC_TRAIN = [
    ("1", "11", "12", 'He said " no .', "He refused ."),
    ("0", "21", "22", "It rose .", 'It " fell ".'),
]
MRPC_DEV = [("1", "31", "32", "She won .", "The winner was her .")]
MRPC_ROWS = {
    ("train", 'He said " no .', "He refused .", 1),
    ("train", "It rose .", 'It " fell ".', 0),
    ("validation", "She won .", "The winner was her .", 1),
}
MSR_HEADER = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]


def mrpc(header: list[str], order: tuple[int, ...], mark: bytes = b"") -> dict[str, bytes]:
    """Return the files of MRPC with these columns, by their places in `MSR_HEADER`."""
    return {
        f"MRPC/{name}.tsv": mark + tsv([header, *([row[i] for i in order] for row in rows)])
        for name, rows in (("train", MRPC_TRAIN), ("dev", MRPC_DEV))
    }


def msr_mrpc(held_out: bytes | None = b"31\t32\n") -> dict[str, bytes]:
    rows = map(list, [MRPC_TRAIN[0], *MRPC_DEV, MRPC_TRAIN[1]])
    whole = b"\xef\xbb\xbf" + tsv([MSR_HEADER, *rows], end="\r\n")
    ids = {} if held_out is None else {"MRPC/dev_ids.tsv": held_out}
    return {"MRPC/msr_paraphrase_train.txt": whole} | ids


PREPARED_MRPC = mrpc(["id1", "id2", "sentence1", "sentence2", "label"], (1, 2, 3, 4, 0))
GLUE_MRPC = mrpc(MSR_HEADER, (0, 1, 2, 3, 4), b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(PREPARED_MRPC, id="named sentence1 and sentence2"),
        pytest.param(GLUE_MRPC, id="written by GLUE's script"),
        pytest.param(msr_mrpc(), id="Microsoft's file and GLUE's ids"),
        pytest.param(msr_mrpc(b"31\t32\r\n"), id="CRLF in the ids"),
        pytest.param(msr_mrpc(b"31\t32"), id="ids without a newline"),
        pytest.param(msr_mrpc() | GLUE_MRPC, id="both, as GLUE's script leaves them"),
        pytest.param(msr_mrpc(None) | GLUE_MRPC, id="both, without the ids"),
    ],
)
def test_mrpc_in_each_of_its_forms(tmp_path: Path, contents: dict[str, bytes]) -> None:
    rows = read("mrpc", write(tmp_path, contents))
    assert len(rows) == 3
    assert set(plain(rows)) == MRPC_ROWS
    assert len({row.id for row in rows}) == 3


def test_mrpc_whose_ids_are_those_of_another_file(tmp_path: Path) -> None:
    folder = write(tmp_path, msr_mrpc(b"31\t32\n98\t99\n"))
    with pytest.raises(StudyError, match=r"dev_ids\.tsv"):
        read("mrpc", folder)


QQP_HEADER = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]


def test_qqp_rows_that_are_broken_or_empty_are_dropped_and_counted(tmp_path: Path) -> None:
    """Two rows of QQP as it is distributed have no second question."""
    train = [
        QQP_HEADER,
        ["1", "2", "3", "How?", "In what way?", "1"],
        ["4", "5", "6", "Was he real?"],
        ["", "What is the evidence?", "0"],
        ["1", "2", "3", "How can I develop android app?", "", "0"],
        ["7", "8", "9", "Why?", "When?", "0"],
    ]
    dev = [QQP_HEADER, ["1", "2", "3", "Who?", "Which?", "0"]]
    kept, dropped = clean(read("qqp", glue(tmp_path, "QQP", train=train, dev=dev)), TASKS["qqp"])
    assert plain(kept) == [
        ("train", "How?", "In what way?", 1),
        ("train", "Why?", "When?", 0),
        ("validation", "Who?", "Which?", 0),
    ]
    assert [row.id for row in kept] == ["train:2", "train:6", "validation:2"]
    assert sum(dropped.values()) == dropped["empty_text"] == 3


MNLI_COLUMNS = ["index", "promptID", "pairID", "genre", "b1", "b2", "p1", "p2"]


def mnli_line(premise: str, hypothesis: str, label: str, annotators: int) -> list[str]:
    # The annotators' own labels disagree with the gold label here, so that none is taken for it.
    return [*"01234567", premise, hypothesis, *["neutral"] * annotators, label]


def test_mnli_has_two_parts_and_two_widths(tmp_path: Path) -> None:
    header = [
        [*MNLI_COLUMNS, "sentence1", "sentence2", *labels, "gold_label"]
        for labels in (["label1"], ["label1", "label2", "label3", "label4", "label5"])
    ]
    assert list(map(len, header)) == [12, 16]
    train = [mnli_line("a", "b", "entailment", 1), mnli_line("c", "d", "contradiction", 1)]
    matched = [mnli_line("e", "f", "neutral", 5)]
    mismatched = [mnli_line("g", "h", "entailment", 5), mnli_line("i", "j", "-", 5)]
    folder = glue(
        tmp_path,
        "MNLI",
        train=[header[0], *train],
        dev_matched=[header[1], *matched],
        dev_mismatched=[header[1], *mismatched],
    )
    rows = read("mnli", folder)
    assert plain(rows) == [
        ("train", "a", "b", 0),
        ("train", "c", "d", 2),
        ("validation", "e", "f", 1),
        ("validation", "g", "h", 0),
        ("validation", "i", "j", None),
    ]
    # The parts are scored apart by what their ids start with.
    assert [row.id.split(":")[0] for row in rows[2:]] == ["matched", "mismatched", "mismatched"]
    assert len({row.id for row in rows}) == 5
    (tmp_path / "MNLI/dev_mismatched.tsv").unlink()
    with pytest.raises(StudyError, match=r"dev_mismatched\.tsv: no such file"):
        read("mnli", folder)


def test_stsb_scores(tmp_path: Path) -> None:
    header = ["index", "genre", "source1", "sentence1", "sentence2", "score"]
    train = [["0", "news", "none", "A", "B", "5.000"], ["1", "news", "none", "C", "D", "0"]]
    dev = [["0", "x", "y", "E", "F", "2.6"]]
    rows = read("stsb", glue(tmp_path, "STS-B", train=[header, *train], dev=[header, *dev]))
    assert plain(rows) == [
        ("train", "A", "B", 5.0),
        ("train", "C", "D", 0.0),
        ("validation", "E", "F", 2.6),
    ]
    assert all(isinstance(row.label, float) for row in rows)


@pytest.mark.parametrize("label", ["-1", "-", ""])
def test_a_sign_for_no_label_is_no_label(tmp_path: Path, label: str) -> None:
    dev = tsv([RTE_HEADER, ["0", "a", "b", label], ["1", "c", "d", "entailment"]])
    rows = read("rte", rte(tmp_path, dev=dev))
    assert [row.label for row in rows[2:]] == [None, 0]
    kept, dropped = clean(rows, TASKS["rte"])
    assert len(kept) == 3
    assert dropped["missing_label"] == 1


MAPPING = {"train": "a.tsv", "validation": "b.tsv", "texts": ["text"], "label": "label"}


def test_minus_one_is_a_class_if_the_task_says_so(tmp_path: Path) -> None:
    task = Task(("text",), ("-1", "1"), ("accuracy",))
    content = tsv([["text", "label"], ["bad", "-1"], ["good", "1"], ["unknown", "-"]])
    folder = write(tmp_path, {"a.tsv": content, "b.tsv": content})
    assert [row.label for row in read("own", folder, task, MAPPING)[:3]] == [0, 1, None]


# --- Files of one's own -----------------------------------------------------------------------

OWN = Task(("premise", "claim"), ("yes", "no", "maybe"), ("accuracy",))
OWN_ROWS = [
    ("It rains.", 'She said "wet".', "yes"),
    ("naïve 🙂", "x, y; z", "no"),
    ("'s", '"', "maybe"),
    ("a\u2028b", "#1", "-"),
]


def own_files(folder: Path, suffix: str, rows: list[tuple[str, str, Any]]) -> dict[str, Any]:
    """Write rows as one kind of file, among columns that nobody asked for; return their mapping."""
    columns = ["claim", "note", "answer", "premise"]
    table = [[claim, "n", answer, premise] for premise, claim, answer in rows]
    for name in ("train", "held_out"):
        path = folder / f"{name}{suffix}"
        if suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([columns, *table])
        elif suffix == ".jsonl":
            records = [dict(zip(columns, row, strict=True)) for row in table]
            path.write_text("".join(f"{json.dumps(r)}\n" for r in records), encoding="utf-8")
        elif suffix == ".parquet":
            parts = [list(column) for column in zip(*table, strict=True)]
            pq.write_table(pa.table(dict(zip(columns, parts, strict=True))), path)
        else:
            path.write_bytes(tsv([columns, *table]))
    mapping: dict[str, Any] = {"train": f"train{suffix}", "validation": f"held_out{suffix}"}
    return mapping | {"texts": ["premise", "claim"], "label": "answer"}


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".csv", ".jsonl", ".parquet", ".TSV"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = read("own", str(tmp_path), OWN, own_files(tmp_path, suffix, OWN_ROWS))
    expected = [
        (premise, claim, {"yes": 0, "no": 1, "maybe": 2, "-": None}[answer])
        for premise, claim, answer in OWN_ROWS
    ]
    assert plain(rows[:4]) == [("train", *row) for row in expected]
    assert plain(rows[4:]) == [("validation", *row) for row in expected]
    assert len({row.id for row in rows}) == 8


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_texts_may_hold_newlines_and_tabs_where_the_format_lets_them(
    tmp_path: Path, suffix: str
) -> None:
    rows = [
        ("two\nlines", "a\tb", "yes"),
        ("\nfirst and last\n", 'quoted "x"\n\n', "no"),
        ("c", "d", "maybe"),
    ]
    found = read("own", str(tmp_path), OWN, own_files(tmp_path, suffix, rows))
    assert [row.texts for row in found[:3]] == [row[:2] for row in rows]
    assert [row.label for row in found[:3]] == [0, 1, 2]


# What every one of the formats can hold: no tab, and no end of a line.
CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1, max_size=12
).filter(lambda text: not is_empty(text))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(CELLS, CELLS, st.sampled_from(["yes", "no", "maybe"])), min_size=1, max_size=6
    )
)
def test_any_text_is_read_back_from_every_kind_of_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    labels = OWN.labels or ()
    expected = [("train", a, b, labels.index(label)) for a, b, label in rows]
    for suffix in (".tsv", ".csv", ".jsonl", ".parquet"):
        found = read("own", str(folder), OWN, own_files(folder, suffix, rows))
        assert plain(found[: len(rows)]) == expected, suffix


def test_labels_may_be_numbers_of_classes(tmp_path: Path) -> None:
    rows = [("a", "x", 2), ("b", "y", 0), ("c", "z", -1)]
    for suffix in (".jsonl", ".parquet"):
        found = read("own", str(tmp_path), OWN, own_files(tmp_path, suffix, rows))
        assert [row.label for row in found[:3]] == [2, 0, None]


def test_numbers_are_not_taken_for_places_where_classes_are_numbers(tmp_path: Path) -> None:
    """With classes 1 and 2, a label 1 is the first class, and a label 0 is a mistake."""
    task = Task(("text",), ("1", "2"), ("accuracy",))
    mapping = MAPPING | {"labels": ["1", "2"]}
    content = tsv([["text", "label"], ["bad", "1"], ["good", "2"]])
    folder = write(tmp_path, {"a.tsv": content, "b.tsv": content})
    assert [row.label for row in read("own", folder, task, mapping)[:2]] == [0, 1]
    write(tmp_path, {"a.tsv": tsv([["text", "label"], ["bad", "0"]])})
    with pytest.raises(StudyError, match=r"a\.tsv line 2: unknown label '0'; known: 1, 2"):
        read("own", folder, task, mapping)


@pytest.mark.parametrize(
    ("content", "second"),
    [
        pytest.param(
            '{"premise": "a", "claim": "b", "answer": "yes", "note": "on the first line only"}\n'
            '{"premise": "c", "claim": "d", "answer": "no"}\n',
            "train:2",
            id="only the keys that are read",
        ),
        pytest.param(
            '{"premise": "a", "claim": "b", "answer": "yes"}\n\n'
            '{"answer": "no", "extra": [1], "claim": "d", "premise": "c"}\n',
            "train:3",
            id="any order of keys",
        ),
    ],
)
def test_json_lines_need_no_one_form(tmp_path: Path, content: str, second: str) -> None:
    mapping = own_files(tmp_path, ".jsonl", [("a", "b", "yes")])
    (tmp_path / "train.jsonl").write_text(content)
    rows = read("own", str(tmp_path), OWN, mapping)
    assert plain(rows[:2]) == [("train", "a", "b", 0), ("train", "c", "d", 1)]
    assert rows[1].id == second


# --- What identifies the rows -----------------------------------------------------------------


def test_a_changed_file_changes_the_location_and_a_test_file_does_not(tmp_path: Path) -> None:
    task, folder = TASKS["rte"], rte(tmp_path)
    before = files.locate("rte", task, folder, None)
    (tmp_path / "RTE/test.tsv").write_text("index\tsentence1\tsentence2\n")
    assert files.locate("rte", task, folder, None) == before
    rte(tmp_path, dev=tsv([RTE_HEADER, *RTE_DEV, *RTE_TRAIN]))
    after = files.locate("rte", task, folder, None)
    hashes: Any = before["sha256"], after["sha256"]
    assert [old == new for old, new in zip(*hashes, strict=True)] == [True, False]


@pytest.mark.parametrize("name", ["train.tsv", "dev.tsv"])
@pytest.mark.parametrize("remove", [False, True])
def test_a_file_that_changed_since_is_not_read(tmp_path: Path, name: str, remove: bool) -> None:
    location = files.locate("rte", TASKS["rte"], rte(tmp_path), None)
    path = tmp_path / "RTE" / name
    path.unlink() if remove else path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(StudyError, match=rf"{name}: changed since params\.yaml was checked"):
        next(files.read_rows("rte", TASKS["rte"], location))


def test_no_folder_and_no_such_task(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^data\.folder: is empty"):
        files.locate("rte", TASKS["rte"], None, None)
    with pytest.raises(StudyError, match=r"^data\.folder: got 'nowhere'; there is no such folder"):
        files.locate("rte", TASKS["rte"], "nowhere", None)
    with pytest.raises(StudyError, match=r"^tasks\.snli\.files .*: is missing; .*qnli"):
        files.locate("snli", TASKS["snli"], str(tmp_path), None)


# --- The real data ----------------------------------------------------------------------------

real = pytest.mark.skipif(not GLUE.is_dir(), reason=f"{GLUE} is not there")
COUNTS = {
    "rte": ("RTE", 2490, 277),
    "mrpc": ("MRPC", 3668, 408),
    "stsb": ("STS-B", 5749, 1500),
    "cola": ("CoLA", 8551, 1043),
    "sst2": ("SST-2", 67349, 872),
}


def independent(name: str, split: str) -> pd.DataFrame:
    """Read a split with pandas, and name its classes by their number."""
    path, header = GLUE / COUNTS[name][0] / f"{split}.tsv", None if name == "cola" else 0
    strings: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8"}
    frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, header=header, **strings)
    if name == "cola":
        frame.columns = pd.Index(["source", "label", "mark", "sentence"])
    if name == "rte":
        frame["label"] = frame["label"].map({"entailment": "0", "not_entailment": "1"})
    return frame.rename(columns={"score": "label"})


@real
@pytest.mark.parametrize("name", COUNTS)
def test_every_row_of_the_real_data(name: str) -> None:
    task = TASKS[name]
    rows = read(name, str(GLUE))
    assert len({row.id for row in rows}) == len(rows)
    _, train, dev = COUNTS[name]
    for split, side, count in (("train", "train", train), ("dev", "validation", dev)):
        found = [row for row in rows if row.split == side]
        frame = independent(name, split)
        assert len(found) == len(frame) == count
        assert [list(row.texts) for row in found] == frame[list(task.texts)].to_numpy().tolist()
        assert [row.label for row in found] == frame["label"].astype(float).tolist()
    assert all(isinstance(row.label, int if task.labels else float) for row in rows)


@real
def test_a_row_of_the_real_data_by_its_id() -> None:
    """An id names the line of the file, read here without any reader at all."""
    rows = {row.id: row for row in read("mrpc", str(GLUE))}
    lines = (GLUE / "MRPC/dev.tsv").read_bytes().decode("utf-8-sig").split("\n")
    for number in (2, 3, 93, 409):
        _, _, first, second, label = lines[number - 1].rstrip("\r").split("\t")
        row = rows[f"validation:{number}"]
        assert (row.texts, row.label) == ((first, second), int(label))
