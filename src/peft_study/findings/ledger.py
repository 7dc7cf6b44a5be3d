"""What a reproduction hangs on: each setting changed alone, and some together, from the study.

Effects are differences from the study as it stands, paired by seed and held-out row, in the scores
that differences rest on. Gaps to published numbers, and shares of them, are in scores as papers
report them (see `findings.shares`). Means over seeds are compared, not medians, of which the error
is larger.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from peft_study.findings import shares
from peft_study.findings.combinations import IdsOf, Scored, ValuesOf, choosing, scored
from peft_study.findings.comparisons import aligned, of_zero, paired, tested
from peft_study.findings.published import of_own_settings, scored_by
from peft_study.findings.results import PublishedRow
from peft_study.records.scores import Cell
from peft_study.records.study import StudyInfo
from peft_study.records.variants import (
    Effect,
    Ledger,
    LedgerEntry,
    MissingVariant,
    NotAdditive,
    PublishedGap,
    Share,
)

Mask = NDArray[np.bool_]


def ledger(
    study: StudyInfo,
    entries: Sequence[LedgerEntry],
    cells: Mapping[str, Cell],
    values_of: ValuesOf,
    ids_of: IdsOf,
    published: Sequence[PublishedRow],
) -> Ledger:
    """Return what each entry changes, and how much of the gaps to published numbers that explains.

    `cells` are by place, `values_of` reads what held-out rows add to a cell's scores and `ids_of`
    the ids of these rows. The study as it stands is the entry of kind `study`. A published row
    counts if it is of the same model, method, task and main metric; in what else it is unlike may
    be what a setting changes.
    """
    groups = []
    for mine in scored(entries, cells, values_of, study.main_metrics).values():
        bases = [one for one in mine if one.entry.kind == "study"]
        groups += [(base, [one for one in mine if one is not base]) for base in bases[:1]]
    effects: list[Effect] = []
    for base, variants in groups:
        half = choosing(ids_of(base.cell))
        effects += [_effect(study, one, base, variants, half) for one in variants]
    effects = _corrected(effects)
    gaps, rest = [], iter(effects)
    for base, variants in groups:
        of = [(one, next(rest)) for one in variants]
        gaps += [_gap(row, base, of) for row in published if _counts(study, row, base)]
    return Ledger(
        effects=tuple(effects),
        gaps=tuple(gaps),
        nothing=tuple(e for e in entries if e.place is None and e.kind != "study"),
        missing=tuple(_missing(entries, cells)),
    )


def _effect(
    study: StudyInfo, one: Scored, base: Scored, variants: Sequence[Scored], half: Mask
) -> Effect:
    """Compare a variant with the study; a combination on the rows that did not choose it."""
    rows = np.ones(len(half), dtype=bool) if one.entry.kind == "alone" else ~half
    learned = {"study": base.learned(), "variant": one.learned()}
    of = [(run.cell, run.values[:, rows]) for run in (one, base)]
    found = paired(of[0], of[1], study.equivalence_margin)
    alone = {run.entry.settings[0]: run for run in variants if run.entry.kind == "alone"}
    parts = [alone[name] for name in one.entry.settings if name in alone]
    beyond = None
    whole = one.entry.kind != "alone" and len(parts) == len(one.entry.settings)
    if whole and all(run.learned() for run in (one, base, *parts)):
        ours, theirs, *others = (
            values[:, rows] for values in aligned(*(run.run for run in (one, base, *parts)))
        )
        rest = ours - theirs - sum(part - theirs for part in others)
        beyond = NotAdditive(**vars(tested(rest, study.equivalence_margin)))
    return Effect(
        **vars(found),
        method=one.entry.method,
        task=one.entry.task,
        metric=one.metric,
        evaluation=study.judged,
        kind=one.entry.kind,
        settings=one.entry.settings,
        unlearned=tuple(name for name in ("study", "variant") if not learned[name]),
        beyond=beyond,
    )


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    """Correct the p of single settings together, those of combinations, and of what is beyond."""
    found = list(effects)
    for alone in (True, False):
        family = [
            place
            for place, row in enumerate(found)
            if (row.kind == "alone") == alone and row.chance and len(row.unlearned) < 2
        ]
        for place, p in zip(family, of_zero([found[at] for at in family]), strict=True):
            found[place] = replace(found[place], p_holm=p)
    of = {at: row.beyond for at, row in enumerate(found) if row.beyond and row.beyond.chance}
    for (place, beyond), p in zip(of.items(), of_zero(list(of.values())), strict=True):
        found[place] = replace(found[place], beyond=replace(beyond, p_holm=p))
    return found


def _counts(study: StudyInfo, row: PublishedRow, base: Scored) -> bool:
    """Tell whether a published row is of the study's cell, and not of a cell of its sweep."""
    same = (row.method, row.task, row.metric) == (base.entry.method, base.entry.task, base.metric)
    return (
        same
        and row.model == study.model.short
        and row.ours is not None
        and (not study.sweep.ranks or of_own_settings(row, study))
    )


def _gap(
    row: PublishedRow, base: Scored, variants: Sequence[tuple[Scored, Effect]]
) -> PublishedGap:
    """Return the gap to a published row, and what of it each variant of the cell explains."""
    metric = scored_by(row)
    ours = _scores(base.cell, metric)
    target = shares.Target(row.published, row.published_std, row.published_seeds)
    gap, low, high = shares.distance(ours, target)
    clear = low is not None and high is not None and not low <= 0 <= high
    found, towards, shown = [], {}, []
    for one, effect in variants if clear else ():
        if not effect.n:
            continue
        fallen = "variant" in effect.unlearned  # what it would explain is not measured
        share = _share(one, base, metric, None if fallen else target)
        found.append(share)
        if share.points * gap > 0 and not fallen:
            towards[share.settings] = share.points * gap
            if effect.kind == "alone" and effect.differs and (effect.mean or 0.0) * gap > 0:
                shown.append(share.settings)
    best = _best(found, towards)
    reached = [_scores(one.cell, metric) for one, _ in variants if one.entry.settings == best]
    left, *ends = shares.distance(reached[0] if best else ours, target)
    names = sorted(shown, key=lambda settings: -towards[settings])
    return PublishedGap(
        method=base.entry.method,
        task=base.entry.task,
        metric=metric,
        citation=row.citation,
        note=row.note,
        published=row.published,
        ours=float(ours.mean()),
        n=len(ours),
        gap=gap,
        low=low,
        high=high,
        shares=tuple(found),
        names=tuple(name for (name,) in names),
        best=best,
        unexplained=left,
        unexplained_low=ends[0],
        unexplained_high=ends[1],
    )


def _share(one: Scored, base: Scored, metric: str, target: shares.Target | None) -> Share:
    """Return what a variant explains of the gap to `target`; its points alone without one."""
    both = [cell.scores(metric) for cell in (one.cell, base.cell)]
    seeds = [seed for seed in both[0] if seed in both[1]]
    variant, study = (np.array([of[seed] for seed in seeds]) for of in both)
    points = tested((variant - study)[:, None], 0.0)
    part, ends = shares.share(variant, study, target) if target else (None, (None, None))
    mean = float((variant - study).mean())
    return Share(one.entry.kind, one.entry.settings, mean, points.low, points.high, part, *ends)


def _scores(cell: Cell, metric: str) -> NDArray[np.float64]:
    return np.array(list(cell.scores(metric).values()))


def _best(found: Sequence[Share], towards: Mapping[tuple[str, ...], float]) -> tuple[str, ...]:
    """Return the settings that together go farthest towards the published number, if any do.

    These are the combination of the most settings all of which go that way each by itself, or else
    the single setting that goes farthest.
    """
    for kind in ("together", "pair"):
        for of in found:
            alone = [(name,) for name in of.settings]
            if of.kind == kind and of.settings in towards and all(a in towards for a in alone):
                return of.settings
    single = [name for name in towards if len(name) == 1]
    return max(single, key=lambda name: towards[name], default=())


def _missing(entries: Sequence[LedgerEntry], cells: Mapping[str, Cell]) -> Iterator[MissingVariant]:
    """Name the entries without results, and those whose study has none to compare them with."""
    without: set[tuple[str, str]] = set()
    for entry in sorted(entries, key=lambda entry: entry.kind != "study"):
        where = entry.method, entry.task
        if entry.place is None and entry.kind != "study":
            continue
        cell = cells.get(entry.place or "")
        why = "" if cell else "it was not evaluated"
        if cell and cell.failed:
            why = "; ".join(f"seed {seed}: {text}" for seed, text in cell.failed.items())
        if entry.kind == "study" and why:
            without.add(where)
        elif where in without and not why:
            why = "the study as it stands has no results"
        if why:
            yield MissingVariant(*where, entry.settings, why)
