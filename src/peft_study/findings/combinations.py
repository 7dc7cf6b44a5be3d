"""Which settings of a ledger are also changed together: chosen on one half of the held-out rows.

What was chosen because it looked large looks smaller on other rows, so a combination is judged on
the other half. The seeds are the same on both: luck of theirs that chose is still in what is judged
there, which no half of the rows mends.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations as pairs

import numpy as np
from numpy.typing import NDArray

from peft_study.findings.chance import Values
from peft_study.findings.comparisons import aligned
from peft_study.findings.rows import CellValues
from peft_study.findings.statistics import not_learned
from peft_study.records import Record
from peft_study.records.scores import Cell
from peft_study.records.variants import Kind, LedgerEntry

ValuesOf = Callable[[Cell], CellValues]
IdsOf = Callable[[Cell], Sequence[str]]


class Scored(Record):
    """An entry with its cell, and its values of the main metric, of shape (seeds, rows)."""

    entry: LedgerEntry
    cell: Cell
    values: Values
    metric: str

    @property
    def run(self) -> tuple[Cell, Values]:
        return self.cell, self.values

    def learned(self, rows: NDArray[np.bool_] | None = None) -> bool:
        """Tell whether its mean lies above the baseline, by seeds and rows, all or some of them."""
        values = self.values if rows is None else self.values[:, rows]
        return not any(row.whole for row in not_learned(self.cell, self.metric, values))


def choosing(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows choose combinations, of shape (rows,): every second by a hash of its id."""
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    found = np.zeros(len(ids), dtype=bool)
    found[order[::2]] = True
    return found


def combinations(
    entries: Sequence[LedgerEntry],
    cells: Mapping[str, Cell],
    values_of: ValuesOf,
    ids_of: IdsOf,
    metrics: Mapping[str, str],
    together: bool,
    fits: Callable[[tuple[str, ...]], bool],
) -> list[LedgerEntry]:
    """Return the combinations to train, of every method and task, their places yet to be set.

    The pair are the two settings of the largest mean effects, of either sign, that fit together,
    so that it is seen whether effects add up. With `together` come all settings that raise the
    score, the largest first as far as they fit, unless these are fewer than two, or the pair. A
    variant that has not learned is not chosen: below the baseline nothing is measured.

    `entries` are the study as it stands and single settings, `cells` by place, `metrics` the main
    metric of each task; `fits` tells whether settings can be changed at once. Settings are named
    in the order of `entries`, which also decides between equal effects.
    """
    found = []
    for (method, task), mine in scored(entries, cells, values_of, metrics).items():
        study = next((one for one in mine if one.entry.kind == "study"), None)
        if study is None:
            continue
        half = choosing(ids_of(study.cell))
        effects: dict[str, float] = {}
        for one in mine:
            if one.entry.kind == "alone" and one.learned(half):
                ours, theirs = aligned(one.run, study.run)
                effects[one.entry.settings[0]] = float(np.nanmean((ours - theirs)[:, half]))
        order = sorted(effects, key=lambda name: -abs(effects[name]))
        pair = next((two for two in pairs(order, 2) if fits(two)), ())
        raised: tuple[str, ...] = ()
        for name in order if together else ():
            if effects[name] > 0 and fits((*raised, name)):
                raised += (name,)
        if len(raised) < 2 or set(raised) == set(pair):
            raised = ()
        both: tuple[tuple[Kind, tuple[str, ...]], ...] = (("pair", pair), ("together", raised))
        for kind, chosen in both:
            if chosen:
                settings = tuple(name for name in effects if name in chosen)
                found.append(LedgerEntry(method, task, kind, settings, None))
    return found


def scored(
    entries: Sequence[LedgerEntry],
    cells: Mapping[str, Cell],
    values_of: ValuesOf,
    metrics: Mapping[str, str],
) -> dict[tuple[str, str], list[Scored]]:
    """Return the entries that have results of all seeds, by method and task, in their order."""
    found = defaultdict(list)
    for entry in entries:
        cell = cells.get(entry.place) if entry.place is not None else None
        if cell is not None and not cell.failed:
            metric = metrics[entry.task]
            one = Scored(entry, cell, values_of(cell)[metric], metric)
            found[entry.method, entry.task].append(one)
    return dict(found)
