"""Differences between methods, paired by seed and held-out row, and corrected for how many."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from peft_study.errors import StudyError
from peft_study.findings import chance
from peft_study.findings.chance import LEVEL, Values
from peft_study.findings.rows import CellValues
from peft_study.records.scores import Cell, Chance, Difference, Family, OverTasks, Paired
from peft_study.records.study import MethodInfo, StudyInfo

ALL_PAIRS = 6  # different methods, up to which each is compared with each on every task

Pair = tuple[Family, MethodInfo, MethodInfo]


def pairs(study: StudyInfo) -> Iterator[Pair]:
    """Yield which methods are compared, by the family of questions.

    Of methods that compute the same the first stands for all against others. More than `ALL_PAIRS`
    are compared with full fine-tuning and with LoRA alone, without either with the first.
    """
    first: dict[str, MethodInfo] = {}
    for method in study.methods:
        first.setdefault(method.computes, method)
    lora, full = study.lora, study.full
    if lora and full:
        yield "lora_full", lora, full
    # Full fine-tuning is what the others are compared with.
    different = sorted(first.values(), key=lambda method: method.family == "full")
    references = different
    if len(different) > ALL_PAIRS:
        references = [first[m.computes] for m in (lora, full) if m] or different[:1]
        different = [m for m in different if m not in references] + references
    for method, reference in combinations(different, 2):
        if reference in references:
            yield "pairs", method, reference
    for method in study.methods:
        if method is not (mine := first[method.computes]):
            yield "implementations", mine, method


def compare(
    study: StudyInfo,
    task: str,
    cells: Mapping[str, Cell],
    values: Mapping[str, CellValues],
    unlearned: Collection[str],
) -> Iterator[Difference]:
    """Compare the cells of a task, by method, in every metric; `unlearned` names methods."""
    for family, method, reference in pairs(study):
        if not {method.name, reference.name} <= set(cells):
            continue
        ours, theirs = cells[method.name], cells[reference.name]
        for metric in ours.metrics:
            of = values[method.name][metric], values[reference.name][metric]
            yield Difference(
                **vars(paired((ours, of[0]), (theirs, of[1]), study.equivalence_margin)),
                task=task,
                metric=metric,
                evaluation=study.judged,
                method=method.name,
                reference=reference.name,
                family=family,
                unlearned=tuple(m.name for m in (method, reference) if m.name in unlearned),
            )


def paired(ours: tuple[Cell, Values], theirs: tuple[Cell, Values], margin: float) -> Paired:
    """Compare the values of two cells, of shape (seeds, rows), over the seeds that both have.

    Raises StudyError if they are of other rows.
    """
    mine, others = aligned(ours, theirs)
    return tested(mine - others, margin)


def aligned(*runs: tuple[Cell, Values]) -> list[Values]:
    """Return the values of cells, of shape (seeds, rows), at the seeds that all of them have.

    Raises StudyError if they are of other rows.
    """
    (first, _), *others = runs
    for cell, _ in others:
        if cell.data.get("validation") != first.data.get("validation"):
            raise StudyError(
                f"metrics/runs: {first.method} and {cell.method} were scored on other held-out "
                f"rows of {first.task}; run 'dvc repro' to make them anew"
            )
    places = [{seed: place for place, seed in enumerate(cell.seeds)} for cell, _ in runs]
    shared = [seed for seed in first.seeds if all(seed in at for at in places)]
    return [
        values[[at[seed] for seed in shared]] for at, (_, values) in zip(places, runs, strict=True)
    ]


def over_tasks(
    margin: float, of_tasks: Mapping[tuple[str, str], Sequence[Chance]], failed: Collection[str]
) -> list[OverTasks]:
    """Compare methods by the mean over tasks of what `chance` says of each task's differences.

    Tasks weigh the same, and their chances are apart: squared errors add up, and the degrees of
    freedom are Satterthwaite's. `failed` names the methods that have not learned some task. Where
    nothing varies a difference is zero, or is not, for certain.
    """
    means = [chance.over_tasks(found) for found in of_tasks.values()]
    zero = holm([of.p_zero() for of in means])
    equal = holm([of.p_equivalence(margin) for of in means])
    return [
        OverTasks(
            *pair,
            mean=of.mean,
            low=of.mean - of.reach(),
            high=of.mean + of.reach(),
            p_holm=p,
            equivalence_holm=equivalence,
            unlearned=tuple(name for name in pair if name in failed),
        )
        for pair, of, p, equivalence in zip(of_tasks, means, zero, equal, strict=True)
    ]


def tested(differences: Values, margin: float) -> Paired:
    """Test differences of shape (seeds, rows), or of seeds alone, of shape (seeds, 1)."""
    n = len(differences)
    if n < 2:
        return Paired(n, float(np.nanmean(differences)) if n else None, margin)
    found = chance.two_way(differences)
    reach = chance.reach(found)
    return Paired(
        n=n,
        mean=found.mean,
        margin=margin,
        low=found.mean - reach,
        high=found.mean + reach,
        p=chance.p_value(found),
        p_equivalence=chance.p_equivalence(found, margin),
        detectable=chance.detectable(found),
        chance=found,
    )


def corrected(study: StudyInfo, differences: Sequence[Difference]) -> list[Difference]:
    """Correct the p of each task's main metric within their families, and say what would settle."""
    families = defaultdict(list)
    for place, row in enumerate(differences):
        if row.metric == study.main_metrics[row.task] and row.chance:
            families[row.family].append(place)
    found = list(differences)
    for places in families.values():
        of = [differences[place] for place in places]
        zero = of_zero(of)
        margin = holm([1.0 if row.p_equivalence is None else row.p_equivalence for row in of])
        for place, p, equivalence in zip(places, zero, margin, strict=True):
            row = replace(found[place], p_holm=p, equivalence_holm=equivalence)
            found[place] = _planned(row, len(places))
    return found


def of_zero(rows: Sequence[Paired]) -> list[float]:
    """Return the p of no difference, corrected for the number of rows.

    Where nothing varies there is no p: such a difference is zero, or is not, for certain.
    """
    return holm([float(not row.mean) if row.p is None else row.p for row in rows])


def holm(p: Sequence[float]) -> list[float]:
    """Return p corrected for their number, in their order.

    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in found]


def _planned(row: Difference, questions: int) -> Difference:
    """Say how many seeds, or rows, would settle what is undecided, if all stays as it is.

    Settled is a difference, or equivalence, whichever takes fewer; at the level that is left for
    the hardest of `questions`.
    """
    if row.equivalent or row.differs or row.chance is None or row.mean is None:
        return row
    distance = max(abs(row.mean), row.margin - abs(row.mean))
    level = 1 - (1 - LEVEL) / questions
    return replace(
        row,
        seeds_needed=chance.seeds_needed(row.chance, distance, level),
        rows_needed=chance.rows_needed(row.chance, distance, level),
    )
