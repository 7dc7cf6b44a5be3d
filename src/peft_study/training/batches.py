"""Tokenised rows, and the order in which they are batched."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from peft_study.records import Record


class Split(Record):
    """The rows of one split: their identifiers in the source, columns and labels.

    Columns are `input_ids` and, where the model has them, `token_type_ids`: a tensor per row.
    Labels (rows,) are int64 classes or float32 scores.
    """

    ids: list[str]
    columns: dict[str, Sequence[Tensor]]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def load_splits(directory: Path) -> tuple[Split, Split]:
    """Load the training and validation splits that `peft_study.data.prepare` wrote."""
    datasets.disable_progress_bars()
    stored = datasets.load_from_disk(str(directory))
    return as_split(stored["train"].to_dict()), as_split(stored["validation"].to_dict())


def as_split(rows: dict[str, Any]) -> Split:
    """Return rows, which are a list for each column, as a split."""
    ids, labels = rows.pop("id"), torch.tensor(rows.pop("label"))
    if labels.is_floating_point():
        labels = labels.to(torch.float32)
    return Split(ids, {column: _per_row(values) for column, values in rows.items()}, labels)


def training_order(rows: int, batch_size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Yield the batches of all epochs, row numbers in random order; an epoch's last may be smaller.

    It depends on its arguments alone, so that a run goes on where it was interrupted.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).tolist()
        for start in range(0, rows, batch_size):
            yield order[start : start + batch_size]


def by_length(split: Split, batch_size: int) -> Iterator[list[int]]:
    """Yield batches of all row numbers, similar lengths together: little padding."""
    order = longest_first(split, range(len(split)))
    for start in range(0, len(split), batch_size):
        yield order[start : start + batch_size]


def longest_first(split: Split, rows: Iterable[int]) -> list[int]:
    """Sort row numbers by their falling lengths, then by number."""
    ids = split.columns["input_ids"]
    return sorted(rows, key=lambda row: (-len(ids[row]), row))


def _per_row(values: list[list[int]]) -> Sequence[Tensor]:
    """Return a tensor per row; they are views of one, which is a hundred times as fast to make."""
    return torch.tensor(list(chain.from_iterable(values))).split([len(row) for row in values])
