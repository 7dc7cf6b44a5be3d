"""Files of tables as records: each one's line, and its values in the columns wanted.

TSV is read without quoting, as GLUE is written; CSV with it; JSON Lines and Parquet as they are.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from peft_study.data import texts
from peft_study.errors import StudyError, first_line
from peft_study.records import Record

ABSENT = object()  # the value of a key that a JSON record lacks

# Each record's line, and its values.
Records = Iterator[tuple[int, Sequence[object]]]


class Columns(Record):
    """Which columns of a file are read, and where their names come from.

    Attributes:
        wanted: alternatives, of which the first that the file has is read, each the text columns
            and then the label column: names, or numbers from 1 on in a file that has no names.
        header: the names of all columns of a file that does not name them itself.
        drops_malformed: lines with a wrong number of fields, or an empty text, have no values.
    """

    wanted: tuple[tuple[str, ...], ...] | tuple[tuple[int, ...], ...]
    header: tuple[str, ...] | None = None
    drops_malformed: bool = False

    @property
    def named_in_file(self) -> bool:
        """Whether the file names its columns itself."""
        return self.header is None and isinstance(self.wanted[0][0], str)


# The names of a file's columns, and what yields the records' values in the columns at some places.
Opened = tuple[list[str], Callable[[list[int]], Records]]
Opener = Callable[[Path, Columns], Opened]


def read_table(path: Path, columns: Columns) -> Records:
    """Yield each record's line and its values in the columns wanted; none, if it is malformed.

    Raises StudyError, naming the file and the line: it is of no known kind, not UTF-8, or empty; a
    column is missing or there twice; a line has a wrong number of fields, or is malformed.
    """
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise StudyError(f"{path}: unknown kind of file; known: {', '.join(sorted(_OPENERS))}")
    names, records = opener(path, columns)
    places = _places(path, list(map(texts.canonical, names)), columns)
    empty = True
    for line, values in records(places):
        empty = False
        if ABSENT in values:
            missing = names[places[values.index(ABSENT)]]
            raise StudyError(f"{path} line {line}: '{missing}' is missing")
        if columns.drops_malformed and any(texts.is_empty(str(text)) for text in values[:-1]):
            values = []
        yield line, values
    if empty:
        raise StudyError(f"{path}: holds no rows")


def _places(path: Path, names: list[str], columns: Columns) -> list[int]:
    alternatives = [list(map(texts.canonical, wanted)) for wanted in columns.wanted]
    wanted = next((w for w in alternatives if set(w) <= set(names)), alternatives[0])
    for column in wanted:
        if names.count(column) != 1:
            problem = "is there more than once" if column in names else "is missing"
            found = ", ".join(_bare(name) for name in names[:20]) + ", ..." * (len(names) > 20)
            utf_16 = "; is it UTF-16? save it as UTF-8" if "\0" in "".join(names) else ""
            raise StudyError(f"{path} line 1: column '{column}' {problem}; found: {found}{utf_16}")
    return [names.index(column) for column in wanted]


def _bare(name: str) -> str:
    return name if name.isprintable() and len(name) <= 60 else texts.shown(name)


# --- Text --------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StudyError(f"{path} line {line}: is not UTF-8 text; save it as UTF-8") from None
    if text.count("\n") <= 1 and re.search("\r(?!\n)", text.rstrip("\r\n")):
        raise StudyError(f"{path}: its lines end in CR alone; let them end in LF or CRLF")
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of each line and what stands in it. Raises StudyError as `read_table`."""
    # Not splitlines: texts may hold the other characters that it takes for ends of lines.
    split = _text(path).split("\n")
    yield from enumerate((line.removesuffix("\r") for line in split), start=1)


def _tsv(path: Path) -> Records:
    return ((number, line.split("\t")) for number, line in lines(path) if line)


def _csv(path: Path) -> Records:
    csv.field_size_limit(2**24)
    # A quoted text may hold ends of lines, so the reader gets them as they are.
    reader = csv.reader((f"{line}\n" for line in _text(path).split("\n")), strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        stray = "new-line character" in str(error)
        problem = "a CR outside of quotes ends no line; quote the text, or take it out"
        raise StudyError(f"{path} line {reader.line_num}: {problem if stray else error}") from None


def _fields(read: Callable[[Path], Records]) -> Opener:
    """Return what opens a file whose records are fields, named by its first line or not at all."""

    def open_file(path: Path, columns: Columns) -> Opened:
        records = read(path)
        first = next(records, None)
        if first is None:
            raise StudyError(f"{path}: is empty")
        names, header = list(map(str, first[1])), columns.header
        if header and list(map(texts.canonical, names)) == list(map(texts.canonical, header)):
            raise StudyError(f"{path} line 1: names the columns; leave out files.columns")
        if not columns.named_in_file:
            names = list(header or map(str, range(1, len(names) + 1)))
            records = chain([first], records)

        def values(places: list[int]) -> Records:
            for line, fields in records:
                if len(fields) == len(names):
                    yield line, [fields[place] for place in places]
                elif columns.drops_malformed:
                    yield line, []
                else:
                    found = f"{len(fields)} fields, expected {len(names)}"
                    raise StudyError(f"{path} line {line}: {found}")

        return names, values

    return open_file


# --- JSON Lines and Parquet ----------------------------------------------------------------------


class _RepeatedKey(ValueError):
    """A key that an object has more than once, of which all readers but this take one silently."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = {texts.canonical(key): value for key, value in pairs}
    if len(record) < len(pairs):
        keys = [texts.canonical(key) for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKey(f"key {texts.shown(repeated)} is there more than once")
    return record


def _json_lines(path: Path, columns: Columns) -> Opened:
    _refuse_unnamed(path, columns)
    records = _objects(path)
    first = next(records, None)
    if first is None:
        raise StudyError(f"{path}: is empty")
    names = list(first[1])

    def values(places: list[int]) -> Records:
        wanted = [names[place] for place in places]
        for line, record in chain([first], records):
            yield line, [record.get(name, ABSENT) for name in wanted]

    return names, values


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_unique)
        except _RepeatedKey as error:
            raise StudyError(f"{path} line {number}: {error}") from None
        except (ValueError, RecursionError) as error:
            problem = f"not valid JSON: {first_line(error)}"
            raise StudyError(f"{path} line {number}: {problem}") from None
        if not isinstance(record, dict):
            raise StudyError(f"{path} line {number}: must hold a JSON object")
        yield number, record


def _parquet(path: Path, columns: Columns) -> Opened:
    import pyarrow
    import pyarrow.parquet

    _refuse_unnamed(path, columns)
    # Arrow's errors are of these kinds; where Python cannot hold a value they are of the last two.
    errors = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
    except errors as error:
        raise StudyError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None

    def rows(places: list[int]) -> Records:
        number = 1
        try:
            for batch in file.iter_batches():
                values = [batch.column(place).to_pylist() for place in places]
                yield from enumerate(zip(*values, strict=True), start=number)
                number += len(batch)
        except errors as error:
            raise StudyError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None

    return names, rows


def _refuse_unnamed(path: Path, columns: Columns) -> None:
    if not columns.named_in_file:
        raise StudyError(
            f"{path}: names its columns itself; name those in files.texts and files.label, "
            "and leave out files.columns"
        )


_OPENERS: dict[str, Opener] = {
    ".tsv": _fields(_tsv),
    ".txt": _fields(_tsv),
    ".csv": _fields(_csv),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
