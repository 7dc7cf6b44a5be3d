"""From a source's rows to the two tokenised splits that training reads."""

import random
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
from peft_study.tasks import TASKS, Task


def prepare(config: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Read, clean, split and tokenise one task; write it below `directory`; return its summary.

    `directory` receives a `datasets` folder with the splits `train` and `validation`, columns
    `id`, `input_ids` (list of int, special tokens included), `token_type_ids` where the model has
    them, and `label` (int class or float score), and `summary.json`: rows, rows dropped and why,
    label counts, token-length percentiles and the score of the best constant prediction.

    Raises:
        StudyError: the source fails, or holds too few rows.
    """
    task = TASKS[config["task"]]
    rows, dropped = clean(read_rows(config["source"], config["task"]), task)
    train, validation = split(
        rows, config["train_rows"], config["validation_rows"], config["split_seed"]
    )
    if task.labels:
        for name, part in (("train", train), ("validation", validation)):
            if len({row.label for row in part}) < 2:
                raise StudyError(f"tasks.{config['task']}: the {name} split holds one class only")
    splits = {
        name: tokenise(part, config["model"], config["max_length"])
        for name, part in (("train", train), ("validation", validation))
    }
    datasets.disable_progress_bars()
    datasets.DatasetDict(splits).save_to_disk(str(directory))
    summary = {
        "task": config["task"],
        "dropped": dropped,
        "baseline": baseline(task, [row.label for row in train], [row.label for row in validation]),
        "splits": {
            name: _describe(task, split["label"], split["input_ids"])
            for name, split in splits.items()
        },
    }
    write_json(directory / "summary.json", summary)
    return summary


def clean(rows: Iterable[Row], task: Task) -> tuple[list[Row], dict[str, int]]:
    """Drop rows without a label, without text, or whose texts came before; count each reason.

    A missing label is None or -1, GLUE's and SNLI's sign for it. Repeated texts are dropped so that
    no text can stand in both splits.
    """
    kept: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    dropped = {"missing_label": 0, "empty_text": 0, "repeated_text": 0}
    for row in rows:
        if row.label is None or (task.labels and row.label == -1):
            dropped["missing_label"] += 1
        elif not all(text.strip() for text in row.texts):
            dropped["empty_text"] += 1
        elif row.texts in seen:
            dropped["repeated_text"] += 1
        else:
            seen.add(row.texts)
            kept.append(row)
    return kept, dropped


def split(
    rows: list[Row], train_rows: int | None, validation_rows: int, seed: int
) -> tuple[list[Row], list[Row]]:
    """Draw a validation split and a training split that share no row and no group.

    Groups are shuffled with `seed`; the validation split takes whole groups until it is full, the
    training split starts with the next group. Neither exceeds the number of rows asked for;
    `train_rows` None takes all that are left.

    Raises:
        StudyError: there are fewer rows than asked for.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    validation: list[Row] = []
    while order and len(validation) < validation_rows:
        validation += order.pop()
    rest = [row for group in order for row in group]
    wanted = len(rest) if train_rows is None else train_rows
    if len(validation) < validation_rows or len(rest) < wanted or not rest:
        raise StudyError(
            f"{validation_rows} validation and {train_rows or 'some'} training rows were asked "
            f"for, but only {len(rows)} usable rows in {len(groups)} groups are there; "
            "lower train_rows or validation_rows"
        )
    return rest[:wanted], validation[:validation_rows]


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
    """Score the best constant: the majority class of `train`, or its mean for regression."""
    constant = Counter(train).most_common(1)[0][0] if task.labels else float(np.mean(train))
    return score(task.metrics, np.full(len(validation), constant), np.asarray(validation))


def _describe(task: Task, labels: list[Any], input_ids: list[list[int]]) -> dict[str, Any]:
    lengths = [len(ids) for ids in input_ids]
    percentiles = np.percentile(lengths, [5, 25, 50, 75, 95, 100])
    counts: dict[str, Any]
    if task.labels:
        counts = {name: labels.count(index) for index, name in enumerate(task.labels)}
    else:
        counts = {"min": min(labels), "mean": float(np.mean(labels)), "max": max(labels)}
    return {
        "rows": len(labels),
        "labels": counts,
        "token_length_percentiles": {
            str(p): float(v) for p, v in zip((5, 25, 50, 75, 95, 100), percentiles, strict=True)
        },
    }
