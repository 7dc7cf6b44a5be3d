"""Files of one's own: GLUE's folder as it is distributed, or any table with named columns.

TSV is read without quoting, as GLUE is written; CSV with it; JSON Lines and Parquet as they are.
"""

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peft_study.data.sources import Row, Side
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, first_line, nearest
from peft_study.files import sha256
from peft_study.records import Record

MISSING_LABELS = ("-1", "-", "")  # how SNLI and MNLI mark rows on which the annotators disagreed
LARGEST_SCORE = 1e30  # labels are float32
ABSENT = object()  # the value of a key that a JSON record lacks

# The names of the columns, unless the file has none; then each record's line, and its values.
Records = Iterator[tuple[int, Sequence[object]]]


class Layout(Record):
    """How GLUE's folder holds a task.

    Attributes:
        columns: alternatives, each the text columns and then the label column.
        validation: the files held out, in the order of the task's parts.
        header: the columns of a file that does not name them.
        drops_malformed: lines with a wrong number of fields are dropped and counted.
    """

    folder: str
    columns: tuple[tuple[str, ...], ...]
    validation: tuple[str, ...] = ("dev.tsv",)
    header: tuple[str, ...] | None = None
    drops_malformed: bool = False


_SENTENCE, _PAIR = ("sentence", "label"), ("sentence1", "sentence2")

LAYOUTS: dict[str, Layout] = {
    "cola": Layout("CoLA", (_SENTENCE,), header=("source", "label", "mark", "sentence")),
    "sst2": Layout("SST-2", (_SENTENCE,)),
    "mrpc": Layout("MRPC", ((*_PAIR, "label"), ("#1 String", "#2 String", "Quality"))),
    # The distributed file has a few broken lines, which every reader of it leaves out.
    "qqp": Layout("QQP", (("question1", "question2", "is_duplicate"),), drops_malformed=True),
    "stsb": Layout("STS-B", ((*_PAIR, "score"),)),
    "mnli": Layout("MNLI", ((*_PAIR, "gold_label"),), ("dev_matched.tsv", "dev_mismatched.tsv")),
    "qnli": Layout("QNLI", (("question", "sentence", "label"),)),
    "rte": Layout("RTE", ((*_PAIR, "label"),)),
    "wnli": Layout("WNLI", ((*_PAIR, "label"),)),
}
# MRPC as Microsoft distributes it: one training file, and the pairs of it that GLUE holds out.
MSR_TRAIN, MSR_HELD_OUT = "msr_paraphrase_train.txt", "dev_ids.tsv"


def locate(
    name: str, task: Task, folder: str | None, files: dict[str, Any] | None
) -> dict[str, object]:
    """Find the files of a task, relative to `folder`, and hash them; no `files`: GLUE's layout.

    Raises StudyError if `folder` or a file is missing, or GLUE has no such task.
    """
    if folder is None:
        raise StudyError("data.folder: is empty; data.source 'files' needs the folder to read")
    root = Path(folder)
    if not root.is_dir():
        raise StudyError(f"data.folder: got '{folder}'; there is no such folder")
    train = "train.tsv"
    if files is not None:
        columns = (*files["texts"], files["label"])
        layout, train = Layout("", (columns,), (files["validation"],)), files["train"]
    elif name in LAYOUTS:
        layout = LAYOUTS[name]
    else:
        raise StudyError(
            f"tasks.{name}.files (or mnli_init.files): is missing; GLUE's folder has no task "
            f"'{name}' ({nearest(name, LAYOUTS)}), so name its files and columns"
        )
    home = root / layout.folder
    paths = [home / train, *(home / file for file in layout.validation)]
    msr = files is None and name == "mrpc" and (home / MSR_TRAIN).is_file()
    if msr := msr and not all(path.is_file() for path in paths):
        paths = [home / MSR_TRAIN, home / MSR_HELD_OUT]
    for path in paths:
        if not path.is_file():
            raise StudyError(f"{path}: no such file; task '{name}' of data.folder '{folder}'")
    return {
        "columns": layout.columns,
        "header": layout.header,
        "drops_malformed": layout.drops_malformed,
        "indices": files is None or not files.get("labels"),
        "msr": msr,
        "train": str(paths[0]),
        "validation": [str(path) for path in paths[1:]],
        "sha256": [sha256(path) for path in paths],
    }


def read_rows(name: str, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of the training file, then of the validation files.

    A row's id is its split, or its part of the validation split, and its line in the file.

    Raises StudyError, naming the file and the line: not UTF-8, a wrong number of fields, a missing
    column, an empty text, an unknown label, a score that is no number or out of range; or a file
    was changed since its stage was configured.
    """
    paths = [Path(path) for path in (location["train"], *location["validation"])]
    for path, expected in zip(paths, location["sha256"], strict=True):
        if not path.is_file() or sha256(path) != expected:
            raise StudyError(f"{path}: changed since params.yaml was checked; run again")
    indices = location["indices"]
    if location["msr"]:
        train, ids_file = paths
        held_out = {tuple(ids.split("\t")): line for line, ids in _lines(ids_file) if ids}
        columns = [[*LAYOUTS["mrpc"].columns[1], "#1 ID", "#2 ID"]]
        for line, values in _read(train, location | {"columns": columns}):
            pair = tuple(map(str, values[3:]))
            side: Side = "validation" if held_out.pop(pair, None) else "train"
            yield _row(f"{train} line {line}", f"{side}:{line}", side, values[:3], task, indices)
        for ids, line in held_out.items():
            raise StudyError(f"{ids_file} line {line}: no pair {' '.join(ids)} in {train}")
        return
    parts = task.parts if len(paths) > 2 else ("validation",)
    for path, part in zip(paths, ("train", *parts), strict=True):
        side = "train" if part == "train" else "validation"
        for line, values in _read(path, location):
            yield _row(f"{path} line {line}", f"{part}:{line}", side, values, task, indices)


def _row(
    place: str, identity: str, side: Side, values: Sequence[object], task: Task, indices: bool
) -> Row:
    """Return the row at `place`; `indices`: its label may be an index of the task's classes."""
    if not values:  # a malformed line that its layout drops
        return Row(identity, identity, ("",) * len(task.texts), None, side)
    *texts, label = values
    for text in texts:
        if not isinstance(text, str):
            raise StudyError(f"{place}: the text {text!r} is not a string")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise StudyError(f"{place}: the text {text!r} holds half a character")
        if not text.strip():
            raise StudyError(f"{place}: a text is empty; fill it in or delete the line")
    found = _label(place, label, task, indices)
    return Row(identity, identity, tuple(map(str, texts)), found, side)


def _label(place: str, value: object, task: Task, indices: bool) -> int | float | None:
    text = "" if value is None else str(value).strip()
    if task.labels:
        if text in task.labels:
            return task.labels.index(text)
        if text in MISSING_LABELS:
            return None
        # A task of the table is also written with its indices; labels of one's own are as given.
        if indices and text in map(str, range(len(task.labels))):
            return int(text)
        raise StudyError(f"{place}: unknown label '{text}'; known: {', '.join(task.labels)}")
    try:
        score = float("no number" if "_" in text else text)
    except ValueError:
        raise StudyError(f"{place}: score '{text}' is no number") from None
    low, high = task.score_range or (-LARGEST_SCORE, LARGEST_SCORE)
    if not low <= score <= high:
        allowed = f" from {low:g} to {high:g}" if task.score_range else ""
        raise StudyError(f"{place}: score {text} is not a finite number{allowed}")
    return score


def _read(path: Path, location: dict[str, Any]) -> Records:
    """Yield each record's line and its values in the columns wanted; none, if it is dropped."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StudyError(f"{path}: unknown kind of file; known: {', '.join(sorted(_READERS))}")
    records = reader(path)
    header = location["header"] or next(records, (0, None))[1]
    if header is None:
        raise StudyError(f"{path}: is empty")
    names = [str(name) for name in header]
    alternatives = location["columns"]
    wanted = next((c for c in alternatives if set(c) <= set(names)), alternatives[0])
    for column in wanted:
        if names.count(column) != 1:
            problem = "is there more than once" if column in names else "is missing"
            found = ", ".join(names)
            raise StudyError(f"{path} line 1: column '{column}' {problem}; found: {found}")
    places = [names.index(column) for column in wanted]
    tolerant, empty = location["drops_malformed"], True
    for line, values in records:
        empty, whole = False, len(values) == len(names)
        if not (whole or tolerant):
            raise StudyError(f"{path} line {line}: {len(values)} fields, expected {len(names)}")
        read = [values[place] for place in places] if whole else []
        if ABSENT in read:
            raise StudyError(f"{path} line {line}: '{wanted[read.index(ABSENT)]}' is missing")
        # QQP has two empty questions besides.
        yield line, [] if tolerant and "" in read[:-1] else read
    if empty:
        raise StudyError(f"{path}: holds no rows")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StudyError(f"{path} line {line}: is not UTF-8 text") from None
    # Not splitlines: texts may hold the other characters that it takes for ends of lines.
    yield from enumerate((line.removesuffix("\r") for line in text.split("\n")), start=1)


def _tsv(path: Path) -> Records:
    return ((number, line.split("\t")) for number, line in _lines(path) if line)


def _csv(path: Path) -> Records:
    csv.field_size_limit(2**24)
    # A quoted text may hold ends of lines, so the reader gets them, empty lines included.
    reader = csv.reader((f"{line}\n" for _, line in _lines(path)), strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise StudyError(f"{path} line {reader.line_num}: {error}") from None


def _json_lines(path: Path) -> Records:
    names: list[str] = []
    for number, line in _lines(path):
        if not line:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path} line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise StudyError(f"{path} line {number}: must hold a JSON object")
        if not names:
            names = list(record)
            yield 0, names
        yield number, [record.get(name, ABSENT) for name in names]


def _parquet(path: Path) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    yield 0, list(table.column_names)
    yield from enumerate(zip(*columns, strict=True), start=1)


_READERS = {".tsv": _tsv, ".txt": _tsv, ".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
