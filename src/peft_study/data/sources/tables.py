"""Files of one's own: GLUE's folder as it is distributed, or any table with named columns.

TSV is read without quoting, as GLUE is written; CSV with it; JSON Lines and Parquet as they are.
"""

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_study.data.sources import Row
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, first_line, nearest
from peft_study.files import sha256

MISSING_LABELS = ("-1", "-", "")  # how SNLI and MNLI mark rows on which the annotators disagreed
LARGEST_SCORE = 1e30  # labels are float32
ABSENT = object()  # the value of a key that a JSON record lacks


@dataclass(frozen=True)
class Layout:
    """How GLUE's folder holds a task.

    Attributes:
        folder: the task's folder.
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


_PAIR = ("sentence1", "sentence2")

LAYOUTS: dict[str, Layout] = {
    "cola": Layout(
        "CoLA", (("sentence", "label"),), header=("source", "label", "mark", "sentence")
    ),
    "sst2": Layout("SST-2", (("sentence", "label"),)),
    "mrpc": Layout("MRPC", ((*_PAIR, "label"), ("#1 String", "#2 String", "Quality"))),
    # The distributed file has a few broken lines, which every reader of it leaves out.
    "qqp": Layout("QQP", (("question1", "question2", "is_duplicate"),), drops_malformed=True),
    "stsb": Layout("STS-B", ((*_PAIR, "score"),)),
    "mnli": Layout(
        "MNLI", ((*_PAIR, "gold_label"),), validation=("dev_matched.tsv", "dev_mismatched.tsv")
    ),
    "qnli": Layout("QNLI", (("question", "sentence", "label"),)),
    "rte": Layout("RTE", ((*_PAIR, "label"),)),
    "wnli": Layout("WNLI", ((*_PAIR, "label"),)),
}
# MRPC as Microsoft distributes it: one training file, and the pairs of it that GLUE holds out.
MSR_TRAIN, MSR_HELD_OUT = "msr_paraphrase_train.txt", "dev_ids.tsv"


def locate(
    name: str, task: Task, folder: str | None, files: dict[str, Any] | None
) -> dict[str, Any]:
    """Find the files of a task and hash them.

    Args:
        name: the task's name.
        task: its definition.
        folder: what the paths are relative to.
        files: `tasks.<name>.files` of the parameters; None reads GLUE's layout.

    Raises:
        StudyError: `folder` or a file is missing, or GLUE has no such task.
    """
    if folder is None:
        raise StudyError("data.folder: is empty; data.source 'files' needs the folder to read")
    root = Path(folder)
    if not root.is_dir():
        raise StudyError(f"data.folder: got '{folder}'; there is no such folder")
    layout: dict[str, Any] = {
        "header": None,
        "drops_malformed": False,
        "indices": files is None or not files.get("labels"),
        "msr": False,
    }
    if files is not None:
        train, validation = files["train"], [files["validation"]]
        layout["columns"] = [[*files["texts"], files["label"]]]
    elif name in LAYOUTS:
        known = LAYOUTS[name]
        layout["columns"] = [list(columns) for columns in known.columns]
        layout["header"] = list(known.header) if known.header else None
        layout["drops_malformed"] = known.drops_malformed
        train = f"{known.folder}/train.tsv"
        validation = [f"{known.folder}/{file}" for file in known.validation]
        split_already = (root / train).is_file() and (root / validation[0]).is_file()
        if name == "mrpc" and (root / known.folder / MSR_TRAIN).is_file() and not split_already:
            train, validation = f"{known.folder}/{MSR_TRAIN}", [f"{known.folder}/{MSR_HELD_OUT}"]
            layout["msr"] = True
    else:
        raise StudyError(
            f"tasks.{name}.files (or mnli_init.files): is missing; GLUE's folder has no task "
            f"'{name}' ({nearest(name, LAYOUTS)}), so name its files and columns"
        )
    paths = [root / train, *(root / file for file in validation)]
    for path in paths:
        if not path.is_file():
            raise StudyError(f"{path}: no such file; task '{name}' of data.folder '{folder}'")
    return layout | {
        "train": str(paths[0]),
        "validation": [str(path) for path in paths[1:]],
        "sha256": [sha256(path) for path in paths],
    }


def read_rows(name: str, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of the training file, then of the validation files.

    A row's id is its split, or its part of the validation split, and its line in the file.

    Raises:
        StudyError: naming the file and the line: not UTF-8, a wrong number of fields, a missing
            column, an empty text, an unknown label, a score that is no number or out of range;
            or a file was changed since its stage was configured.
    """
    train, validation = Path(location["train"]), [Path(p) for p in location["validation"]]
    for path, expected in zip((train, *validation), location["sha256"], strict=True):
        if not path.is_file() or sha256(path) != expected:
            raise StudyError(f"{path}: changed since params.yaml was checked; run again")
    columns = location["columns"]
    if location["msr"]:
        held_out = {tuple(ids.split("\t")): line for line, ids in _lines(validation[0]) if ids}
        columns = [[*LAYOUTS["mrpc"].columns[1], "#1 ID", "#2 ID"]]
        for line, values in _read(train, location | {"columns": columns}):
            side = "validation" if held_out.pop(tuple(values[3:]), None) else "train"
            yield _row(train, line, side, side, values[:3], task, location)
        for ids, line in held_out.items():
            raise StudyError(f"{validation[0]} line {line}: no pair {' '.join(ids)} in {train}")
        return
    sources = [(train, "train", "train")]
    parts = task.parts if len(validation) > 1 else ("validation",)
    sources += [(path, "validation", part) for path, part in zip(validation, parts, strict=True)]
    for path, split, part in sources:
        for line, values in _read(path, location):
            yield _row(path, line, split, part, values, task, location)


def _row(
    path: Path,
    line: int,
    split: Any,
    part: str,
    values: list[Any],
    task: Task,
    location: dict[str, Any],
) -> Row:
    identity = f"{part}:{line}"
    if not values:  # a malformed line that its layout drops
        return Row(identity, identity, ("",) * len(task.texts), None, split)
    *texts, label = values
    for text in texts:
        if not isinstance(text, str):
            raise StudyError(f"{path} line {line}: the text {text!r} is not a string")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise StudyError(f"{path} line {line}: the text {text!r} holds half a character")
        if not text.strip():
            raise StudyError(f"{path} line {line}: a text is empty; fill it in or delete the line")
    return Row(identity, identity, tuple(texts), _label(path, line, label, task, location), split)


def _label(
    path: Path, line: int, value: Any, task: Task, location: dict[str, Any]
) -> int | float | None:
    text = "" if value is None else str(value).strip()
    if task.labels:
        if text in task.labels:
            return task.labels.index(text)
        if text in MISSING_LABELS:
            return None
        # A task of the table is also written with its indices; labels of one's own are as given.
        if location["indices"] and text in map(str, range(len(task.labels))):
            return int(text)
        raise StudyError(
            f"{path} line {line}: unknown label '{text}'; known: {', '.join(task.labels)}"
        )
    try:
        score = float("no number" if "_" in text else text)
    except ValueError:
        raise StudyError(f"{path} line {line}: score '{text}' is no number") from None
    low, high = task.score_range or (-LARGEST_SCORE, LARGEST_SCORE)
    if not low <= score <= high:
        allowed = f" from {low:g} to {high:g}" if task.score_range else ""
        raise StudyError(f"{path} line {line}: score {text} is not a finite number{allowed}")
    return score


def _read(path: Path, location: dict[str, Any]) -> Iterator[tuple[int, list[Any]]]:
    """Yield each record's line and its values in the columns wanted."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StudyError(f"{path}: unknown kind of file; known: {', '.join(sorted(_READERS))}")
    records = reader(path)
    names = location["header"]
    if names is None:
        try:
            _, names = next(records)
        except StopIteration:
            raise StudyError(f"{path}: is empty") from None
    alternatives = location["columns"]
    wanted = next((c for c in alternatives if set(c) <= set(names)), alternatives[0])
    for column in wanted:
        if names.count(column) != 1:
            problem = "is missing" if column not in names else "is there more than once"
            raise StudyError(
                f"{path} line 1: column '{column}' {problem}; found: {', '.join(names)}"
            )
    places = [names.index(column) for column in wanted]
    empty = True
    for line, values in records:
        empty = False
        if len(values) != len(names):
            if location["drops_malformed"]:
                yield line, []
                continue
            raise StudyError(f"{path} line {line}: {len(values)} fields, expected {len(names)}")
        read = [values[place] for place in places]
        if ABSENT in read:
            raise StudyError(f"{path} line {line}: '{wanted[read.index(ABSENT)]}' is missing")
        # QQP has two empty questions besides.
        yield line, [] if location["drops_malformed"] and "" in read[:-1] else read
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


def _tsv(path: Path) -> Iterator[tuple[int, list[Any]]]:
    for number, line in _lines(path):
        if line:
            yield number, line.split("\t")


def _csv(path: Path) -> Iterator[tuple[int, list[Any]]]:
    csv.field_size_limit(2**24)
    # A quoted text may hold ends of lines, so the reader gets them, empty lines included.
    reader = csv.reader((f"{line}\n" for _, line in _lines(path)), strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise StudyError(f"{path} line {reader.line_num}: {error}") from None


def _json_lines(path: Path) -> Iterator[tuple[int, list[Any]]]:
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


def _parquet(path: Path) -> Iterator[tuple[int, list[Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    yield 0, list(table.column_names)
    yield from enumerate(map(list, zip(*columns, strict=True)), start=1)


_READERS = {
    ".tsv": _tsv,
    ".txt": _tsv,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
