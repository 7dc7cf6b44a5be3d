"""Whatever a table holds, its rows are those of a plain reading, or one line says what is wrong.

The plain reading knows nothing of the project's own reader: it is docs/data.md in a few lines.
"""

import csv
import functools
import io
import json
import math
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from conftest import FUZZ, outcome
from peft_study.data import prepare as stage
from peft_study.data.sources import tables
from peft_study.data.tasks import Task
from peft_study.data.texts import is_empty
from peft_study.data.tokens import load_tokenizer
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.records import Record
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig

Draw = st.DrawFn
Labels = tuple[str, ...] | None


class Case(Record):
    """A training and a held-out file, how they are described, and the labels; None: scores."""

    contents: dict[str, bytes]
    files: dict[str, Any]
    labels: Labels


# --- What people's files hold --------------------------------------------------------------------

SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl", ".parquet")
ODDITIES = ("texts", "missing", "labels", "columns", "unnamed", "encoding", "line ends", "damage")
NFC, NFD = (functools.partial(unicodedata.normalize, form) for form in ("NFC", "NFD"))
FORMS = st.sampled_from((NFC, NFD))
PLAIN = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz "), min_size=8, max_size=20)
ODD_TEXTS: list[object] = [
    *("", " ", "\u200b\ufeff", "\u3164", "\U0001f600", "\U0001f621 \U0001f621", '"', 'a "b" c'),
    *("a\nb", "a\r\nb", "a\rb", "a\tb", "a\u2028b", "a\x85b", "a\0b", "\ufffd", "[SEP]", "a,b"),
    *(
        "e\u0301t\u00e9",
        "\u0930\u093e\u092e \u0917\u092f\u0940",
        "\ud83d",
        "word " * 60,
        None,
        7,
        [],
    ),
]
LABELS: list[Labels] = [
    *(("bad", "good"), ("n\u00e9gatif", "positif"), ("false", "true"), ("0", "1"), ("nan", "-1")),
    None,
]
MISSING: list[object] = [None, math.nan, "", "nan", "NaN", "-", "-1", -1, " "]
ODD_LABELS: list[object] = [
    *(7, 0.0, 1.0, True, "True", [], {"a": 1}, "great", "4,5", "1_0", "1e3", 10**400, 1e300),
    *(float("inf"), 1_700_000_000.0, 1_700_000_001.0, "bad\ngood"),
]
DAMAGE = st.sampled_from([b"", b"\xff", b"\0", b"\r", b"\n", b'"', b"\t", b"{", b"\xc3"])


@st.composite
def cases(draw: Draw) -> Case:
    odd = {draw(st.sampled_from((*ODDITIES, "nothing"))) for _ in range(draw(st.integers(1, 2)))}
    suffix, labels = draw(st.sampled_from(SUFFIXES)), draw(st.sampled_from(LABELS))
    texts = draw(st.sampled_from((["text"], ["pr\u00e9misse", "claim"])))
    names = draw(st.permutations([*texts, "label", "note"]))
    columns: list[Any] = [draw(FORMS)(column) for column in (*texts, "label")]
    files: dict[str, Any] = {"train": f"train{suffix}", "validation": f"dev{suffix}"}
    header = not ("unnamed" in odd and draw(st.booleans()))
    if "unnamed" in odd and draw(st.booleans()):
        columns = [names.index(NFC(column)) + 1 for column in columns]
    elif "unnamed" in odd:
        files["columns"] = list(map(draw(FORMS), names))
    contents = {}
    for file in (files["train"], files["validation"]):
        written = list(map(draw(FORMS), names))
        if "columns" in odd and draw(st.booleans()):
            place = draw(st.sampled_from([names.index("note"), *range(len(names))]))
            written[place] = draw(st.sampled_from([*names, "a\nb"]))
        rows = [
            {column: draw(cells(column, suffix, labels, odd)) for column in names}
            for _ in range(draw(st.integers(0 if "columns" in odd else 5, 10)))
        ]
        table = [list(row.values()) for row in rows]
        if suffix == ".parquet":
            content = parquet(written, table, draw(st.booleans()))
        else:
            lines = written_lines(suffix, written, table, header)
            content = draw(encoded(lines, odd))
        if "damage" in odd:
            at = draw(st.integers(0, len(content)))
            content = content[:at] + draw(DAMAGE) + content[at + draw(st.integers(0, 2)) :]
            content = content[: draw(st.sampled_from((len(content), at)))]
        contents[file] = content
    return Case(contents, files | {"texts": columns[:-1], "label": columns[-1]}, labels)


def cells(column: str, suffix: str, labels: Labels, odd: set[str]) -> st.SearchStrategy[object]:
    """Draw what stands in a column: mostly what belongs there, unless that is to be odd."""
    usual: st.SearchStrategy[object]
    unusual: list[st.SearchStrategy[object]] = []
    if column == "note":
        return st.sampled_from((1, "n", None))
    if column != "label":
        usual = PLAIN
        if "texts" in odd:
            unusual = [st.sampled_from(ODD_TEXTS), st.text(max_size=9)]
    else:
        usual = st.floats(-5, 5).map(lambda score: round(score, 2))
        if labels:
            usual = st.builds(lambda name, form: form(name), st.sampled_from(labels), FORMS)
        if labels == ("false", "true") and suffix in (".jsonl", ".parquet"):
            usual = st.booleans()
        elif labels == ("0", "1"):
            usual = st.sampled_from([0, 1] if suffix in (".tsv", ".txt", ".csv") else [0, 1.0])
        if "missing" in odd:
            unusual.append(st.sampled_from(MISSING))
        if "labels" in odd:
            unusual.append(st.sampled_from(ODD_LABELS))
    return st.one_of(*[usual] * 5, *unusual)


def parquet(names: list[str], table: list[list[object]], dictionary: bool) -> bytes:
    arrays = []
    for column in zip(*table, strict=True):
        try:
            array = pa.array(column)
        except (pa.ArrowException, TypeError, OverflowError, UnicodeError):
            texts = [written(value).encode("utf-8", "replace").decode() for value in column]
            array = pa.array(texts)
        is_text = pa.types.is_string(array.type)
        arrays.append(array.dictionary_encode() if dictionary and is_text else array)
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names[: len(arrays)]), file)
    return file.getvalue()


def written_lines(
    suffix: str, names: list[str], table: list[list[object]], header: bool
) -> list[str]:
    if suffix == ".jsonl":
        keys = list(map(json.dumps, names))  # of which one may be there twice
        pairs = [zip(keys, map(json.dumps, row), strict=True) for row in table]
        return ["{" + ", ".join(": ".join(pair) for pair in row) + "}" for row in pairs]
    rows = [*([names] if header else []), *(list(map(written, row)) for row in table)]
    if suffix != ".csv":
        return ["\t".join(row) for row in rows]
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        lines.append(line.getvalue())
    return lines


def written(value: object) -> str:
    return "" if value is None else str(value)


@st.composite
def encoded(draw: Draw, lines: list[str], odd: set[str]) -> bytes:
    end, code = "\n", "utf-8"
    if "line ends" in odd:
        end = draw(st.sampled_from(("\r\n", "\r", "\n\n", "\r\r\n", "\u2028")))
    if "encoding" in odd:
        code = draw(st.sampled_from(("utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252")))
    text = end.join(lines) + end * draw(st.integers(0, 1))
    return text.encode(code, "surrogatepass" if code.startswith("utf") else "replace")


# --- The plain reading ---------------------------------------------------------------------------


HALF = re.compile("[\ud800-\udfff]")


class Refused(Exception):
    """What a file holds cannot be meant."""


Plain = dict[str, tuple[list[object], float | None]]


def plainly(case: Case) -> Plain | Refused:
    """Return texts and label by id, or why there are none."""
    try:
        return plain_rows(case)
    except Refused as refused:
        return refused


def plain_rows(case: Case) -> Plain:
    found = {}
    wanted = [*case.files["texts"], case.files["label"]]
    for part in ("train", "validation"):
        file = case.files[part]
        given, suffix = case.files.get("columns"), Path(file).suffix
        rows = list(records(case.contents[file], suffix, wanted, given))
        for line, (*texts, label) in rows:
            for text in texts:
                if not isinstance(text, str) or is_empty(text) or HALF.search(text):
                    raise Refused(f"text {text!r}")
            found[f"{part}:{line}"] = (texts, meant(label, case.labels))
        if not rows:
            raise Refused("no rows")
    return found


def records(
    content: bytes, suffix: str, wanted: list[Any], given: list[str] | None
) -> Iterator[tuple[int, list[Any]]]:
    """Yield each record's number and its values in the columns wanted."""
    numbers = isinstance(wanted[0], int)
    if suffix in (".jsonl", ".parquet") and (given or numbers):
        raise Refused("the file names its columns")
    if suffix == ".parquet":
        try:
            table = pq.ParquetFile(io.BytesIO(content)).read()
            at = places(table.column_names, wanted)
            lists = [table.column(place).to_pylist() for place in at]
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Refused(str(error)) from None
        yield from enumerate(map(list, zip(*lists, strict=True)), start=1)
        return
    lines = text_lines(content)
    if suffix == ".jsonl":
        objects = [(number, as_object(line)) for number, line in lines if line.strip()]
        for number, found in objects:
            places(list(objects[0][1]), wanted)
            if not set(map(NFC, wanted)) <= set(found):
                raise Refused("a key is missing")
            yield number, [found[NFC(column)] for column in wanted]
        return
    rows = [(number, line.split("\t")) for number, line in lines if line]
    if suffix == ".csv":
        reader = csv.reader((line + "\n" for line in decoded(content).split("\n")), strict=True)
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise Refused(str(error)) from None
    if not rows or (given and list(map(NFC, rows[0][1])) == list(map(NFC, given))):
        raise Refused("empty, or the names are there")
    first = [str(n + 1) for n in range(len(rows[0][1]))] if numbers else rows[0][1]
    names = given or first
    at = places(names, [str(column) for column in wanted])
    for number, row in rows if given or numbers else rows[1:]:
        if len(row) != len(names):
            raise Refused("a line with more or fewer fields")
        yield number, [row[place] for place in at]


def decoded(content: bytes) -> str:
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise Refused(str(error)) from None
    if text.count("\n") < 2 and re.search("\r[^\r\n]", text):
        raise Refused("lines end in CR")
    return text


def text_lines(content: bytes) -> list[tuple[int, str]]:
    lines = decoded(content).split("\n")
    return [(number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1)]


def places(names: list[str], wanted: list[str]) -> list[int]:
    compared = [NFC(name.strip()) for name in names]
    if any(compared.count(NFC(column)) != 1 for column in wanted):
        raise Refused("a column is missing, or there twice")
    return [compared.index(NFC(column)) for column in wanted]


def as_object(line: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({NFC(key.strip()) for key, _ in pairs}) < len(pairs):
            raise Refused("a key twice")
        return {NFC(key.strip()): value for key, value in pairs}

    try:
        found = json.loads(line, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    if not isinstance(found, dict):
        raise Refused("no object")
    return found


def meant(value: Any, labels: Labels) -> float | None:
    """Return a class or a score; None, if it is missing. Raises Refused."""
    if value is None or value != value:
        return None
    text = NFC(str(value).strip())
    if labels is None:
        if text.lower() in ("", "nan"):
            return None
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
            raise Refused(f"score {text}")
        if abs(float(text)) > 1e12:
            raise Refused(f"score {text}")
        return float(text)
    names = [NFC(name) for name in labels]
    forms = [text]
    if value is True or value is False:
        forms = [text, text.lower()]
    elif isinstance(value, float) and math.isfinite(value) and value == int(value):
        forms = [text, str(int(value))]
    for form in forms:
        if form in names:
            return names.index(form)
        if form.lower() in ("", "nan", "-", "-1"):
            return None
    raise Refused(f"label {text}")


# --- Both ----------------------------------------------------------------------------------------

TOKENISER = functools.cache(load_tokenizer)


@FUZZ
@given(case=cases())
def test_the_rows_of_a_table_are_those_of_a_plain_reading_or_one_line_says_why(case: Case) -> None:
    names = tuple(map(str, case.files["texts"]))
    task = Task(names, case.labels, ("accuracy",) if case.labels else ("pearson", "spearman"))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in case.contents.items():
            Path(folder, name).write_bytes(content)

        def locate() -> dict[str, object]:
            return tables.locate("own", task, folder, case.files | {"labels": case.labels})

        location = outcome(locate)
        expected = plainly(case)
        if isinstance(expected, Refused) or isinstance(location, StudyError):
            event("refused")
            assert isinstance(location, StudyError), expected
            assert isinstance(expected, Refused), location
            return
        rows = {row.id: row for row in tables.read_rows("own", task, location)}
        assert {name: (list(row.texts), row.label) for name, row in rows.items()} == expected
        encoder = Encoder("minilm", None, None, ARCHITECTURES["bert"])
        config = PrepareConfig(
            "tasks.own", "own", task, "files", location, 0, None, None, encoder, {}, 16
        )
        out = Path(folder, "out")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "load_tokenizer", TOKENISER)
            prepared = outcome(lambda: stage.prepare(config, out))
        if isinstance(prepared, StudyError):
            event(re.sub(r".*: |\d+", "", str(prepared)))
            assert not out.exists()
            return
        event("prepared")
        held_out = {n for n, (_, label) in expected.items() if n[0] == "v" and label is not None}
        stored = datasets.load_from_disk(str(out))
        assert set(stored["validation"]["id"]) == held_out
        for name, split in stored.items():
            for row in split:
                texts, label = expected[row["id"]]
                read = TOKENISER("minilm", None)(*texts, truncation=True, max_length=16)
                assert (row["input_ids"], row["label"]) == (read["input_ids"], label)
                assert row["id"].startswith(name)
