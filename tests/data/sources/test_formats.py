"""Kinds of files as people write them: what is read is what was meant, or one line says why not."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import outcome
from peft_study.data.prepare import clean
from peft_study.data.sources import Row, tables
from peft_study.data.tasks import TASKS, Task
from peft_study.errors import StudyError

NAMED = {"texts": ["text"], "label": "label"}
ROWS = [("it rained", "bad"), ("it shone", "good"), ("it thundered", "bad")]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def own(
    folder: Path,
    name: str,
    content: str | bytes,
    labels: list[str] | None = None,
    files: dict[str, Any] = NAMED,
) -> list[Row] | StudyError:
    """Read one file as both splits; return the training rows, or the line that says what is wrong.

    What is wrong is known where the file is looked at, before its rows are read.
    """
    whole = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(whole)
    labels = labels or ["bad", "good"]
    task = Task(tuple(map(str, files["texts"])), tuple(labels), ("accuracy",))
    described = {"train": name, "validation": name, "labels": labels} | files
    location = outcome(lambda: tables.locate("own", task, str(folder), described))
    if isinstance(location, StudyError):
        return location
    rows = list(tables.read_rows("own", task, json.loads(json.dumps(location))))
    return [row for row in rows if row.split == "train"]


def read(rows: list[Row] | StudyError) -> list[tuple[Any, ...]]:
    assert not isinstance(rows, StudyError), rows
    return [(*row.texts, row.label) for row in rows]


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def parquet(columns: dict[str, Any] | pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), file)
    return file.getvalue()


# --- A key or a column that is there twice -------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ('{"text": "a", "label": "bad", "label": "good"}', "label"),
        ('{"text": "a", "text": "b", "label": "good"}', "text"),
        ('{"text": "a", "label": "bad", "la\\u0062el": "good"}', "label"),
        ('{"text": "a", "label": "bad", "note": {"by": 1, "by": 2}}', "by"),
        (f'{{"text": "a", "label": "bad", "né": 1, "{nfd("né")}": 2}}', "né"),
    ],
    ids=["label", "text", "escaped", "within another", "in two forms"],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_json_key_given_twice(tmp_path: Path, record: str, key: str, place: int) -> None:
    good = [json.dumps({"text": text, "label": label, "né": 0}) for text, label in ROWS]
    found = own(tmp_path, "a.jsonl", "\n".join([*good[:place], record, *good[place:]]))
    assert str(found) == (
        f"{tmp_path}/a.jsonl line {place + 1}: key '{key}' is there more than once"
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet"])
def test_a_column_given_twice(tmp_path: Path, name: str) -> None:
    content: str | bytes = "text\tlabel\tlabel\na\tbad\tgood\n".replace(
        "\t", ",\t"[name == "a.tsv"]
    )
    if name == "a.parquet":
        content = parquet(pa.table([["a"], ["bad"], ["good"]], ["text", "label", "label"]))
    found = own(tmp_path, name, content)
    assert "a.parquet line 1" in str(found) or "line 1: column 'label'" in str(found)
    assert "column 'label' is there more than once" in str(found)


# --- Line ends -----------------------------------------------------------------------------------

TSV = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS)
CSV = TSV.replace("\t", ",")
JSONL = lines([{"text": text, "label": label} for text, label in ROWS])
READ = [(text, ("bad", "good").index(label)) for text, label in ROWS]


@pytest.mark.parametrize(("name", "content"), [("a.tsv", TSV), ("a.csv", CSV), ("a.jsonl", JSONL)])
@pytest.mark.parametrize("last", ["", "\r", "\n", "\r\n"])
def test_lines_that_end_in_cr_alone_are_named(
    tmp_path: Path, name: str, content: str, last: str
) -> None:
    found = own(tmp_path, name, content.strip().replace("\n", "\r") + last)
    problem = "its lines end in CR alone; let them end in LF or CRLF"
    assert str(found) == f"{tmp_path}/{name}: {problem}"


def test_lines_of_glue_that_end_in_cr_alone(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    content = "index\tsentence1\tsentence2\tlabel\r0\ta\tb\tentailment\r"
    for name in ("train", "dev"):
        (tmp_path / f"RTE/{name}.tsv").write_text(content, newline="")
    with pytest.raises(StudyError, match=r"RTE/train\.tsv: its lines end in CR alone"):
        tables.locate("rte", TASKS["rte"], str(tmp_path), None)


@pytest.mark.parametrize(("name", "content"), [("a.tsv", TSV), ("a.csv", CSV), ("a.jsonl", JSONL)])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("last", [True, False])
def test_other_line_ends_change_no_row(
    tmp_path: Path, name: str, content: str, end: str, last: bool
) -> None:
    content = content.replace("\n", end)
    assert read(own(tmp_path, name, content if last else content.rstrip("\r\n"))) == READ


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb", "a\nb", '\r\n"', "a\u2028b"])
def test_a_quoted_text_keeps_its_line_ends(tmp_path: Path, text: str) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows([("text", "label"), (text, "bad"), *ROWS])
    found = read(own(tmp_path, "a.csv", file.getvalue()))
    assert found == [(text, 0), *READ]


def test_a_cr_outside_of_quotes_in_csv_is_named(tmp_path: Path) -> None:
    found = own(tmp_path, "a.csv", CSV + "a\rb,good\n")
    assert str(found).startswith(f"{tmp_path}/a.csv line 5: a CR outside of quotes")


# --- Missing labels ------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "x", "label": NaN}\n{"text": "y", "label": null}\n' + JSONL),
        ("a.jsonl", '{"text": "x", "label": ""}\n{"text": "y", "label": "NaN"}\n' + JSONL),
        ("a.csv", CSV + "x,\ny,nan\n"),
        ("a.tsv", TSV + "x\tNaN\ny\t \n"),
    ],
    ids=["JSON", "JSON strings", "CSV", "TSV"],
)
def test_a_null_and_a_nan_label_are_both_missing(tmp_path: Path, name: str, content: str) -> None:
    found = own(tmp_path, name, content)
    assert not isinstance(found, StudyError), found
    _, dropped = clean(found, TASKS["movie_polarity"])
    assert sum(dropped.values()) == dropped["missing_label"] == 2
    assert {row.label for row in found} == {None, 0, 1}


@pytest.mark.parametrize("values", [[1, None, 0], [1.0, NAN, 0.0], [1.0, None, NAN]])
@pytest.mark.parametrize("write", [pd.DataFrame.to_parquet, pd.DataFrame.to_json])
def test_labels_as_pandas_writes_them(
    tmp_path: Path, values: list[float | None], write: Callable[..., Any]
) -> None:
    """Beside a gap whole numbers become fractions: 1.0 is the class 1."""
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": values})
    if write is pd.DataFrame.to_json:
        name, content = "a.jsonl", frame.to_json(orient="records", lines=True).encode()
    else:
        name, content = "a.parquet", frame.to_parquet()
    expected = [None if value is None or value != value else int(value) for value in values]
    assert [row[-1] for row in read(own(tmp_path, name, content, ["0", "1"]))] == expected


def test_missing_scores_are_missing_and_a_class_may_be_called_nan(tmp_path: Path) -> None:
    task = Task(("text",), None, ("pearson", "spearman"))
    files = NAMED | {"train": "a.jsonl", "validation": "a.jsonl"}
    content = (
        '{"text": "x", "label": NaN}\n{"text": "y", "label": null}\n{"text": "z", "label": 2}\n'
    )
    (tmp_path / "a.jsonl").write_text(content + '{"text": "-", "label": "nan"}\n')
    location = tables.locate("own", task, str(tmp_path), files)
    found = [row.label for row in tables.read_rows("own", task, location)]
    assert found == [None, None, 2.0, None] * 2
    assert read(own(tmp_path, "a.tsv", "text\tlabel\na\tnan\nb\tyue\n", ["nan", "yue"])) == [
        ("a", 0),
        ("b", 1),
    ]


# --- Booleans, and forms of Unicode --------------------------------------------------------------


@pytest.mark.parametrize("labels", [["false", "true"], ["true", "false"], ["True", "False"]])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_booleans_are_labels(tmp_path: Path, name: str, labels: list[str]) -> None:
    values = [True, False, None, True]
    rows = [{"text": str(n), "label": value} for n, value in enumerate(values)]
    content: str | bytes = lines(rows)
    if name == "a.parquet":
        content = parquet({"text": list("0123"), "label": values})
    expected = [
        None if value is None else list(map(str.lower, labels)).index(str(value).lower())
        for value in values
    ]
    assert [row[-1] for row in read(own(tmp_path, name, content, labels))] == expected


@pytest.mark.parametrize("labels", [["0", "1"], ["no", "yes"]])
def test_booleans_are_no_other_labels(tmp_path: Path, labels: list[str]) -> None:
    found = own(tmp_path, "a.jsonl", '{"text": "a", "label": true}\n', labels)
    assert str(found).endswith(f"line 1: unknown label 'True'; known: {', '.join(labels)}")


@pytest.mark.parametrize(
    "labels", [["négatif", "positif"], ["Ärger", "Freude"], ["부정", "긍정"], ["tệ", "tốt"]]
)
@pytest.mark.parametrize("turned", [False, True])
def test_labels_in_either_form_of_unicode(tmp_path: Path, labels: list[str], turned: bool) -> None:
    ours, theirs = (labels, list(map(nfd, labels)))[:: -1 if turned else 1]
    content = "text\tlabel\n" + "".join(f"a {label}\t{label} \n" for label in theirs)
    assert [row[-1] for row in read(own(tmp_path, "a.tsv", content, ours))] == [0, 1]
    rows = [{"text": "a", "label": label} for label in theirs]
    for name, whole in (
        ("a.jsonl", lines(rows)),
        ("a.parquet", parquet(pa.Table.from_pylist(rows))),
    ):
        assert [row[-1] for row in read(own(tmp_path, name, whole, ours))] == [0, 1]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("turned", [False, True])
def test_columns_and_files_in_either_form_of_unicode(
    tmp_path: Path, suffix: str, turned: bool
) -> None:
    theirs, ours = ("prémisse", "étiquette"), list(map(nfd, ("prémisse", "étiquette")))
    if turned:
        theirs, ours = (nfd(theirs[0]), nfd(theirs[1])), list(theirs)
    rows = [dict(zip(theirs, row, strict=True)) for row in ROWS]
    content: dict[str, str | bytes] = {
        ".tsv": TSV.replace("text\tlabel", "\t".join(theirs)),
        ".csv": CSV.replace("text,label", ",".join(theirs)),
        ".jsonl": lines(rows),
        ".parquet": parquet(pa.Table.from_pylist(rows)),
    }
    name = f"données{suffix}"
    own(tmp_path, nfd(name) if turned else name, content[suffix])
    files = {"texts": [ours[0]], "label": ours[1]}
    task = Task((ours[0],), ("bad", "good"), ("accuracy",))
    described = files | {"train": name, "validation": name, "labels": ["bad", "good"]}
    location = tables.locate("own", task, str(tmp_path), described)
    found = list(tables.read_rows("own", task, location))
    assert read(found[:3]) == READ


# --- Tables without a header ---------------------------------------------------------------------

AG_NEWS = (
    '"3","Wall St. Bears Claw Back (Reuters)","Reuters - Short-sellers, ""ultra-cynics"", win."\n'
    '"4","A new chip","It is\\fast, they say"\n'
    '"1","Talks resume","In Vienna"\n'
)
WORLD = ["1", "2", "3", "4"]
AG_ROWS = [
    ("Wall St. Bears Claw Back (Reuters)", 'Reuters - Short-sellers, "ultra-cynics", win.', 2),
    ("A new chip", "It is\\fast, they say", 3),
    ("Talks resume", "In Vienna", 0),
]
BY_NUMBER = {"texts": [2, 3], "label": 1}
BY_NAME = {
    "columns": ["class", "title", "description"],
    "texts": ["title", "description"],
    "label": "class",
}


@pytest.mark.parametrize("files", [BY_NUMBER, BY_NAME], ids=["by number", "by name"])
def test_ag_news_as_it_is_distributed(tmp_path: Path, files: dict[str, Any]) -> None:
    found = own(tmp_path, "train.csv", AG_NEWS, WORLD, files)
    assert read(found) == AG_ROWS
    assert isinstance(found, list)
    assert [row.id for row in found] == ["train:1", "train:2", "train:3"]


@pytest.mark.parametrize(
    ("name", "content", "files", "expected"),
    [
        ("a.tsv", "good\tx\ta\nbad\ty\tb\n", {"texts": [3], "label": 1}, [("a", 1), ("b", 0)]),
        ("a.txt", "a\tgood\nb\tbad\n", {"texts": [1], "label": 2}, [("a", 1), ("b", 0)]),
        (
            "a.tsv",
            "label\tgood\nb\tbad\n",
            {"columns": ["text", "label"], "texts": ["text"], "label": "label"},
            [("label", 1), ("b", 0)],
        ),
        (
            "a.csv",
            '"a\nb",good\n',
            {"columns": ["née", "s"], "texts": [nfd("née")], "label": "s"},
            [("a\nb", 1)],
        ),
    ],
)
def test_other_tables_without_a_header(
    tmp_path: Path, name: str, content: str, files: dict[str, Any], expected: list[Any]
) -> None:
    assert read(own(tmp_path, name, content, files=files)) == expected


@pytest.mark.parametrize(
    ("name", "content", "files", "says"),
    [
        (
            "a.csv",
            AG_NEWS,
            BY_NUMBER | {"label": 4},
            "line 1: column '4' is missing; found: 1, 2, 3",
        ),
        ("a.csv", '"1","a"\n' + AG_NEWS, BY_NUMBER, "line 1: column '3' is missing; found: 1, 2"),
        ("a.csv", AG_NEWS + '"1","a"\n', BY_NUMBER, "line 4: 2 fields, expected 3"),
        ("a.csv", AG_NEWS + '"1","a"\n', BY_NAME, "line 4: 2 fields, expected 3"),
        (
            "a.csv",
            "class,title,description\n" + AG_NEWS,
            BY_NUMBER,
            "line 1: unknown label 'class'",
        ),
        (
            "a.csv",
            "class,title,description\n" + AG_NEWS,
            BY_NAME,
            "line 1: names the columns; leave",
        ),
        ("a.csv", "", BY_NUMBER, ": is empty"),
        ("a.jsonl", JSONL, BY_NUMBER, ": names its columns itself; name those"),
        ("a.parquet", parquet({"a": [1]}), BY_NAME, ": names its columns itself; name those"),
    ],
)
def test_a_table_without_a_header_that_is_not_as_described(
    tmp_path: Path, name: str, content: str | bytes, files: dict[str, Any], says: str
) -> None:
    found = own(tmp_path, name, content, WORLD, files)
    assert isinstance(found, StudyError)
    assert says in str(found)
    assert str(found).startswith(f"{tmp_path}/{name}")


# --- Messages, and files that cannot be read -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.tsv",
            "text\u2028label\u2028a\u2028good\u2028" * 500,
            "column 'text' is missing; found: 't",
        ),
        ("a.csv", '"a\nb",label\nx,good\n', "column 'text' is missing; found: 'a\\nb', label"),
        ("a.csv", 'text,label\nx,"go\nod"\n', "unknown label 'go\\nod'"),
        ("a.jsonl", json.dumps({"text": "x", "label": "y" * 10**6}), "unknown label 'yyyy"),
        ("a.jsonl", json.dumps({"text": ["x\n"] * 10**5, "label": "y"}), "the text ['x\\n', 'x"),
        ("a.tsv", TSV.encode("utf-16"), "line 1: is not UTF-8 text; save it as UTF-8"),
        ("a.tsv", TSV.encode("utf-16-le"), "is it UTF-16? save it as UTF-8"),
        ("a.jsonl", '{"a": 1}' * 2, "line 1: not valid JSON: Extra data"),
    ],
)
def test_a_message_is_one_short_line(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    assert says in str(own(tmp_path, name, content))


def test_a_file_that_the_system_does_not_read(tmp_path: Path) -> None:
    """Its pages are not to be had, as with a broken disk; the superuser may not read it either."""
    unreadable = Path("/proc/self/mem")
    if not unreadable.is_file():
        pytest.skip("this system has no file that nobody can read")
    for suffix in (".tsv", ".parquet"):
        (tmp_path / f"a{suffix}").symlink_to(unreadable)
        files = NAMED | {"train": f"a{suffix}", "validation": f"a{suffix}"}
        task = Task(("text",), ("bad", "good"), ("accuracy",))
        found = outcome(lambda: tables.locate("own", task, str(tmp_path), files))  # noqa: B023
        assert str(found).endswith(": Input/output error")


@pytest.mark.parametrize("name", ["é" * 150, "😀" * 70, "a" * 300])
def test_a_name_that_the_system_does_not_take(tmp_path: Path, name: str) -> None:
    task = Task(("text",), ("bad", "good"), ("accuracy",))
    files = NAMED | {"train": f"{name}.tsv", "validation": "a.tsv"}
    for folder in (tmp_path, tmp_path / name):
        found = outcome(lambda: tables.locate("own", task, str(folder), files))  # noqa: B023
        assert str(found).endswith(": File name too long")


def test_permission_denied_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.tsv").write_text(TSV)
    task = Task(("text",), ("bad", "good"), ("accuracy",))
    files = NAMED | {"train": "a.tsv", "validation": "a.tsv"}
    monkeypatch.setattr(Path, "open", refuse)
    found = outcome(lambda: tables.locate("own", task, str(tmp_path), files))
    assert str(found) == f"{tmp_path}/a.tsv: Permission denied"


def test_the_first_rows_are_looked_at_and_a_long_file_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FIRST_ROWS", 3)
    assert isinstance(own(tmp_path, "a.tsv", TSV.replace("thundered\tbad", "t\tx")), StudyError)
    (tmp_path / "a.tsv").write_text(TSV + "late\tunknown\n")
    task = Task(("text",), ("bad", "good"), ("accuracy",))
    files = NAMED | {"train": "a.tsv", "validation": "a.tsv"}
    location = tables.locate("own", task, str(tmp_path), files)
    with pytest.raises(StudyError, match="line 5: unknown label 'unknown'"):
        list(tables.read_rows("own", task, location))
