"""Files of one's own: GLUE's folder as it is distributed, or any table, by its columns."""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from peft_study.data import texts
from peft_study.data.sources import Row, Side
from peft_study.data.sources.formats import Columns, lines, read_table
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, nearest, system_errors
from peft_study.files import sha256
from peft_study.records import Record

# How tables mark a label that is missing; SNLI and MNLI, where the annotators disagreed.
MISSING, MISSING_CLASSES = ("", "nan"), ("-", "-1")
LARGEST_SCORE = 1e12  # the squares of larger ones, summed over all gradients, overflow in float32
_HALF = re.compile("[\ud800-\udfff]")  # of a pair of UTF-16, which JSON may write alone
FIRST_ROWS = 10_000  # of each file, which are looked at before anything is prepared


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

    The first rows of each are read as `read_rows` reads them, so that what is wrong with a file is
    known before anything is prepared.

    Raises StudyError if `folder` or a file is missing or cannot be read, GLUE has no such task, or
    as `read_rows`.
    """
    if folder is None:
        raise StudyError("data.folder: is empty; data.source 'files' needs the folder to read")
    with system_errors(folder):
        location = _locate(name, Path(folder), files)
        for rows in _rows_by_file(task, location):
            deque(islice(rows, FIRST_ROWS), maxlen=0)
    return location


def _locate(name: str, root: Path, files: dict[str, Any] | None) -> dict[str, Any]:
    if not root.is_dir():
        raise StudyError(f"data.folder: got '{root}'; there is no such folder")
    train = "train.tsv"
    if files is not None:
        columns, header = (*files["texts"], files["label"]), files.get("columns")
        layout, train = Layout("", (columns,), (files["validation"],), header), files["train"]
    elif name in LAYOUTS:
        layout = LAYOUTS[name]
    else:
        raise StudyError(
            f"tasks.{name}.files (or mnli_init.files): is missing; GLUE's folder has no task "
            f"'{name}' ({nearest(name, LAYOUTS)}), so name its files and columns"
        )
    home = root / layout.folder
    paths = [_file(home, file) for file in (train, *layout.validation)]
    msr = files is None and name == "mrpc" and (home / MSR_TRAIN).is_file()
    if msr := msr and not all(path.is_file() for path in paths):
        paths = [home / MSR_TRAIN, home / MSR_HELD_OUT]
    for path in paths:
        if not path.is_file():
            raise StudyError(f"{path}: no such file; task '{name}' of data.folder '{root}'")
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


def _file(home: Path, name: str) -> Path:
    """Return the file of that name; where it is written in Unicode's other form, that one."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((home / form for form in forms if (home / form).is_file()), home / name)


def read_rows(name: str, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of the training file, then of the validation files.

    A row's id is its split, or its part of the validation split, and its line in the file.

    Raises StudyError, naming the file and the line: not UTF-8, a wrong number of fields, a missing
    column, an empty text, an unknown label, a score that is no number or out of range; or a file
    was changed since its stage was configured, or cannot be read.
    """
    with system_errors(location["train"]):
        paths = (location["train"], *location["validation"])
        for path, expected in zip(map(Path, paths), location["sha256"], strict=True):
            if not path.is_file() or sha256(path) != expected:
                raise StudyError(f"{path}: changed since params.yaml was checked; run again")
        for rows in _rows_by_file(task, location):
            yield from rows


def read_texts(path: Path, task: Task) -> Iterator[Row]:
    """Yield the texts of a table by the names, or numbers, of the task's columns, without labels.

    A row's id is what the column `id` says or, without one, its line.

    Raises StudyError as `read_rows` does of texts and columns.
    """
    names = task.texts
    numbers = tuple(int(name) for name in names if name.isdecimal())
    columns = Columns((numbers,) if len(numbers) == len(names) else ((*names, "id"), names))
    with system_errors(path):
        for line, values in read_table(path, columns):
            identity = values[-1] if len(values) > len(names) else line
            read = [*values[: len(names)], None]
            yield _row(f"{path} line {line}", str(identity), "validation", read, task, False)


def _rows_by_file(task: Task, location: dict[str, Any]) -> Iterator[Iterator[Row]]:
    train, *validation = map(Path, (location["train"], *location["validation"]))
    if location["msr"]:
        yield _msr_rows(train, validation[0], task, location)
        return
    parts = task.parts if len(validation) > 1 else ("validation",)
    for path, part in zip((train, *validation), ("train", *parts), strict=True):
        yield _rows(path, part, task, location)


def _rows(path: Path, part: str, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    wanted, header = (tuple(map(tuple, location["columns"])), location["header"])
    columns = Columns(wanted, header and tuple(header), location["drops_malformed"])
    side: Side = "train" if part == "train" else "validation"
    for line, values in read_table(path, columns):
        place = f"{path} line {line}"
        yield _row(place, f"{part}:{line}", side, values, task, location["indices"])


def _msr_rows(train: Path, ids_file: Path, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    held_out = {tuple(ids.split("\t")): line for line, ids in lines(ids_file) if ids}
    columns = Columns(((*LAYOUTS["mrpc"].columns[1], "#1 ID", "#2 ID"),))
    for line, values in read_table(train, columns):
        pair = tuple(map(str, values[3:]))
        side: Side = "validation" if held_out.pop(pair, None) else "train"
        place, indices = f"{train} line {line}", location["indices"]
        yield _row(place, f"{side}:{line}", side, values[:3], task, indices)
    for ids, line in held_out.items():
        raise StudyError(f"{ids_file} line {line}: no pair {' '.join(ids)} in {train}")


def _row(
    place: str, identity: str, side: Side, values: Sequence[object], task: Task, indices: bool
) -> Row:
    """Return the row at `place`; `indices`: its label may be an index of the task's classes."""
    if not values:  # a malformed line that its layout drops
        return Row(identity, identity, ("",) * len(task.texts), None, side)
    *read, label = values
    for text in read:
        if not isinstance(text, str):
            raise StudyError(f"{place}: the text {texts.shown(text)} is not a string")
        if _HALF.search(text):
            raise StudyError(f"{place}: the text {texts.shown(text)} holds half a character")
        if texts.is_empty(text):
            raise StudyError(f"{place}: a text is empty; fill it in or delete the line")
    found = _label(place, label, task, indices)
    return Row(identity, identity, tuple(map(str, read)), found, side)


def _label(place: str, value: object, task: Task, indices: bool) -> int | float | None:
    """Return a class or a score; None, if it is missing: null, not a number, or nothing."""
    text = texts.canonical("" if value is None or value != value else value)
    if not task.labels:
        return None if text.lower() in MISSING else _score(place, text, task)
    classes, spellings = _classes(task.labels), [text]
    if isinstance(value, bool):
        spellings.append(text.lower())
    elif isinstance(value, float) and value.is_integer():
        spellings.append(str(int(value)))  # pandas makes whole numbers fractions beside a gap
    for spelling in spellings:
        if spelling in classes:
            return classes[spelling]
        if spelling.lower() in (*MISSING, *MISSING_CLASSES):
            return None
        # A task of the table is also written with its indices; labels of one's own are as given.
        if indices and spelling in map(str, range(len(task.labels))):
            return int(spelling)
    known = ", ".join(task.labels)
    raise StudyError(f"{place}: unknown label {texts.shown(text)}; known: {known}")


@cache
def _classes(labels: tuple[str, ...]) -> dict[str, int]:
    return {texts.canonical(label): index for index, label in enumerate(labels)}


def _score(place: str, text: str, task: Task) -> float:
    shown = texts.shown(text)
    try:
        score = float("no number" if "_" in text else text)
    except ValueError:
        raise StudyError(f"{place}: score {shown} is no number") from None
    if task.score_range:
        (low, high), allowed = task.score_range, "a finite number from {:g} to {:g}"
    else:
        low, high = -LARGEST_SCORE, LARGEST_SCORE
        allowed = "a number from {:g} to {:g}; divide all scores, so that their squares are finite"
    if not low <= score <= high:
        raise StudyError(f"{place}: score {shown} is not {allowed.format(low, high)}")
    return score
