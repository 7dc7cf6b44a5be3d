"""What variants of the study gave: the grid of the sweep, and settings changed one at a time."""

from typing import Literal

from peft_study.records import Record
from peft_study.records.scores import Cell

SWEEP, UNTUNED = "sweep", "untuned"  # where, below all variants, their cells are
Kind = Literal["study", "alone", "pair", "together"]


class LedgerEntry(Record):
    """A cell of the ledger: a method on a task with `settings` changed, none as it stands.

    `pair` are the two settings of the largest effects, `together` all that raise the score; both
    are chosen on one half of the held-out rows. `place` is that of its cell; None where the
    settings change nothing of this method on this task.
    """

    method: str
    task: str
    kind: Kind
    settings: tuple[str, ...]
    place: str | None


class VariantRuns(Record):
    """`metrics/runs/variants.json`: the cells of all variants by place, and those of the ledger.

    What held-out rows add to a cell is in `metrics/rows/variants/<place>.parquet`.
    """

    cells: dict[str, Cell]
    ledger: tuple[LedgerEntry, ...] = ()


def is_swept(place: str) -> bool:
    """Tell whether a variant's cell is one of the sweep."""
    return place.startswith(f"{SWEEP}/")
