"""What variants of the study gave: the grid of the sweep, and settings changed one at a time."""

from typing import Literal

from peft_study.records import Record
from peft_study.records.scores import Cell, Paired
from peft_study.records.study import Evaluated

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


def is_untuned(place: str) -> bool:
    """Tell whether a variant's cell is the study's own, as it was before it was tuned."""
    return place.startswith(f"{UNTUNED}/")


def is_swept(place: str) -> bool:
    """Tell whether a variant's cell is one of the sweep."""
    return place.startswith(f"{SWEEP}/")


class NotAdditive(Paired, kw_only=True):
    """What a combination's effect is above the sum of its settings' own, paired by seed and row.

    `p_holm` is corrected for all combinations of the ledger.
    """

    p_holm: float | None = None


class Effect(Paired, kw_only=True):
    """What a variant scores minus the study as it stands, in the task's main metric.

    That of a combination, and `beyond`, are of the half of the rows that did not choose it.
    `unlearned` tells which of the two have not learned the task: of both it decides nothing, and of
    one the size is the distance to the task's baseline. `p_holm` is corrected for all single
    settings of the ledger, or for all combinations (Holm 1979); None where nothing is decided.
    """

    method: str
    task: str
    metric: str
    evaluation: Evaluated
    kind: Kind
    settings: tuple[str, ...]
    unlearned: tuple[Literal["study", "variant"], ...] = ()
    p_holm: float | None = None
    beyond: NotAdditive | None = None

    @property
    def differs(self) -> bool:
        return self.p_holm is not None and self.p_holm < 0.05


class Share(Record):
    """How much of the gap to a published number settings explain, in scores as papers report them.

    `points`, with `low` to `high` its 95% interval by seeds, are the variant's mean minus the
    study's; `share` is that divided by the gap, with its own interval. It is None where the variant
    has not learned, or beside it the gap is not told from zero well enough to divide by it.
    """

    kind: Kind
    settings: tuple[str, ...]
    points: float
    low: float | None
    high: float | None
    share: float | None
    share_low: float | None
    share_high: float | None


class PublishedGap(Record):
    """A published number minus the mean of this study's n seeds: see `findings.ledger`.

    Of a gap that is told from zero, `shares` are those of the variants, and `names` the settings
    that explain it, the largest share first: their effects are shown and have its sign.
    `unexplained` is published minus what the settings `best` give; without such settings the gap
    itself. Each has its 95% interval, of seeds alone: the rows are the same.
    """

    method: str
    task: str
    metric: str
    citation: str
    note: str | None
    published: float
    ours: float
    n: int
    gap: float
    low: float | None
    high: float | None
    shares: tuple[Share, ...]
    names: tuple[str, ...]
    best: tuple[str, ...]
    unexplained: float
    unexplained_low: float | None
    unexplained_high: float | None

    @property
    def clear(self) -> bool:
        """Whether the gap is told from zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class MissingVariant(Record):
    """An entry of the ledger without results, and why."""

    method: str
    task: str
    settings: tuple[str, ...]
    reason: str


class Ledger(Record):
    """`metrics/ledger.json`; `nothing` are settings that change nothing of a method on a task."""

    effects: tuple[Effect, ...]
    gaps: tuple[PublishedGap, ...]
    nothing: tuple[LedgerEntry, ...] = ()
    missing: tuple[MissingVariant, ...] = ()
