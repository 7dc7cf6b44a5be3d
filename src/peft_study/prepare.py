"""From a source's rows to the two tokenised splits that training reads."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer

from peft_study.architectures import model_folder
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.metrics import score
from peft_study.sources import Row, read_rows
from peft_study.tasks import Task

HELD_OUT = 0.2  # the share of a source's groups from which validation rows are drawn


def prepare(config: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Read, clean, split and tokenise one task; write it below `directory`; return its summary.

    `directory` receives a `datasets` folder with the splits `train` and `validation`, columns
    `id`, `input_ids` (list of int, special tokens included), `token_type_ids` where the model has
    them, and `label` (int class or float score), and `summary.json`: rows, rows dropped and why,
    a hash of the row ids, label counts, token-length percentiles and the baseline's scores.

    Raises:
        StudyError: the source fails, or holds too few rows.
    """
    task = Task.from_config(config["task_definition"])
    rows, dropped = clean(read_rows(config["source"], config["task"]), task)
    wanted = config["train_rows"], config["validation_rows"]
    try:
        train, validation = split(rows, *wanted, config["split_seed"])
    except StudyError as error:
        raise StudyError(f"{config['key']}.{error}") from None
    if task.labels:
        for name, part in (("train", train), ("validation", validation)):
            if len({row.label for row in part}) < 2:
                raise StudyError(f"{config['key']}: the {name} split holds one class only")
    splits = {
        name: tokenise(part, config["model"], config["max_length"])
        for name, part in (("train", train), ("validation", validation))
    }
    held_out = set(map(tuple, splits["validation"]["input_ids"]))
    if shared := sum(tuple(ids) in held_out for ids in splits["train"]["input_ids"]):
        raise StudyError(
            f"{config['key']}: {shared} training rows read as validation rows do once they are cut "
            f"to model.max_length {config['max_length']}; raise it"
        )
    datasets.disable_progress_bars()
    datasets.DatasetDict(splits).save_to_disk(str(directory))
    summary = {
        "task": config["task"],
        "dropped": dropped,
        "baseline": baseline(task, [row.label for row in train], [row.label for row in validation]),
        "splits": {name: _describe(task, split) for name, split in splits.items()},
    }
    write_json(directory / "summary.json", summary)
    return summary


def clean(rows: Iterable[Row], task: Task) -> tuple[list[Row], dict[str, int]]:
    """Drop rows without text, whose texts came before, or without a label; count each reason.

    A missing label is None or -1, GLUE's and SNLI's sign for it. Texts that differ in case, spaces
    and punctuation alone count as the same, and are dropped so that none stands in both splits.
    """
    kept: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    dropped = {"missing_label": 0, "empty_text": 0, "repeated_text": 0}
    for row in rows:
        spelling = tuple(map(_spelling, row.texts))
        if not all(text.strip() for text in row.texts):
            dropped["empty_text"] += 1
        elif spelling in seen:
            dropped["repeated_text"] += 1
        elif row.label is None or (task.labels and row.label == -1):
            dropped["missing_label"] += 1
        else:
            kept.append(row)
        seen.add(spelling)
    return kept, dropped


def _spelling(text: str) -> str:
    folded = text.casefold()
    # A text of signs alone, say ":-)", is its own spelling.
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def split(
    rows: list[Row], train_rows: int | None, validation_rows: int, seed: int
) -> tuple[list[Row], list[Row]]:
    """Draw a training and a validation split that share no row and no group.

    A hash of the seed and the group decides on which side a group lies and in which order it is
    drawn, so a group that one task holds out, no other task with that seed trains on: not even the
    intermediate task. Neither split exceeds the rows asked for; `train_rows` None takes all.

    Raises:
        StudyError: there are fewer rows than asked for.
    """

    def place(row: Row) -> float:
        digest = hashlib.sha256(f"{seed}:{row.group}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    ordered = sorted(rows, key=lambda row: (place(row), row.group))
    validation = [row for row in ordered if place(row) < HELD_OUT]
    train = [row for row in ordered if place(row) >= HELD_OUT]
    for key, wanted, found in (
        ("train_rows", train_rows or 2, train),
        ("validation_rows", validation_rows, validation),
    ):
        if len(found) < wanted:
            raise StudyError(
                f"{key}: got {wanted}; must be at most the {len(found)} that are there"
            )
    return train[:train_rows], validation[:validation_rows]


def tokenise(rows: list[Row], model: str, max_length: int) -> datasets.Dataset:
    """Tokenise rows once and for all, without padding; texts are cut to `max_length` tokens.

    The table is built column by column from the same list, so a label cannot leave its text.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder(model), local_files_only=True)
    columns = [list(texts) for texts in zip(*(row.texts for row in rows), strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    table = pa.table(
        {
            "id": [row.id for row in rows],
            **{
                name: pa.array(encoded[name], pa.list_(pa.int32()))
                for name in ("input_ids", "token_type_ids")
                if name in encoded
            },
            "label": [row.label for row in rows],
        }
    )
    # A fixed fingerprint: the default one is random, and would change the bytes of every run.
    return datasets.Dataset(table, fingerprint="prepared")


def baseline(task: Task, train: list[Any], validation: list[Any]) -> dict[str, float]:
    """Score a constant prediction: the majority class of `train`, or its mean for regression."""
    constant = Counter(train).most_common(1)[0][0] if task.labels else float(np.mean(train))
    return score(task.metrics, np.full(len(validation), constant), np.asarray(validation))


def _describe(task: Task, split: datasets.Dataset) -> dict[str, Any]:
    ids, labels, input_ids = list(split["id"]), list(split["label"]), split["input_ids"]
    lengths = [len(ids) for ids in input_ids]
    percentiles = np.percentile(lengths, [5, 25, 50, 75, 95, 100])
    counts: dict[str, Any]
    if task.labels:
        counts = {name: labels.count(index) for index, name in enumerate(task.labels)}
    else:
        counts = {"min": min(labels), "mean": float(np.mean(labels)), "max": max(labels)}
    return {
        "rows": len(labels),
        "sha256_of_ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "labels": counts,
        "token_length_percentiles": {
            str(p): float(v) for p, v in zip((5, 25, 50, 75, 95, 100), percentiles, strict=True)
        },
    }
