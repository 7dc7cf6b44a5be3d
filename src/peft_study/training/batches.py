"""Tokenised rows, and the order in which they are batched."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        ids: row identifiers of the source.
        columns: `input_ids` and, where the model has them, `token_type_ids`; a list per row.
        labels: shape (rows,), int64 classes or float32 scores.
    """

    ids: list[str]
    columns: dict[str, list[list[int]]]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def load_splits(directory: Path) -> tuple[Split, Split]:
    """Load the training and validation splits that `peft_study.prepare` wrote."""
    datasets.disable_progress_bars()
    stored = datasets.load_from_disk(str(directory))
    splits = []
    for name in ("train", "validation"):
        rows: dict[str, Any] = stored[name].to_dict()
        labels = torch.tensor(rows.pop("label"))
        if labels.is_floating_point():
            labels = labels.to(torch.float32)
        splits.append(Split(ids=rows.pop("id"), columns=rows, labels=labels))
    return splits[0], splits[1]


def epoch_order(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield one epoch's batches of row numbers in random order; the last one may be smaller."""
    order = torch.randperm(rows, generator=generator).tolist()
    for start in range(0, rows, batch_size):
        yield order[start : start + batch_size]


def by_length(split: Split, batch_size: int) -> Iterator[list[int]]:
    """Yield batches of row numbers, similar lengths together, longest first: little padding."""
    lengths = [len(ids) for ids in split.columns["input_ids"]]
    order = sorted(range(len(split)), key=lambda row: (-lengths[row], row))
    for start in range(0, len(split), batch_size):
        yield order[start : start + batch_size]
