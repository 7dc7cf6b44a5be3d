"""What tuning chose, what it changed, and whether a conclusion hangs on who was tuned.

Trials hold out a part of the training rows and have seeds of their own. The scores that choose are
thus of other rows and other seeds than the results, whose intervals the choice leaves alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from peft_study.findings import chance
from peft_study.findings.choosing import choose, is_whole
from peft_study.findings.comparisons import corrected, paired
from peft_study.findings.rows import CellValues
from peft_study.findings.statistics import not_learned
from peft_study.records.scores import Cell, Cells, Difference, Family
from peft_study.records.study import StudyInfo
from peft_study.records.tuning import (
    ForAllTasks,
    Scored,
    ScoredTrial,
    Trial,
    TrialRuns,
    TunedCell,
    Tuning,
    TuningCost,
    WhoWasTuned,
)

UNCHANGED = "the study had these values"
ValuesOf = Callable[[Cell], CellValues]


def tuning(
    study: StudyInfo,
    runs: TrialRuns,
    tuned: Cells,
    untuned: Cells,
    values_of_trial: ValuesOf,
    values_of: ValuesOf,
) -> Tuning:
    """Draw all that tuning tells from the trials, the study's own cells, and the untuned ones.

    `untuned` has the cells of which the chosen values differ from the method's own, failed ones
    too. `values_of_trial` and `values_of` read what held-out rows add to the scores of a trial and
    of the others. Raises StudyError where no trial of a method on a task has a result.
    """
    by_cell: dict[tuple[str, str], list[Trial]] = {}
    for trial in runs.trials:
        by_cell.setdefault((trial.method, trial.task), []).append(trial)
    found = [
        _tuned_cell(study, trials, runs, tuned.get(of), untuned.get(of), values_of_trial, values_of)
        for of, trials in by_cell.items()
    ]
    asked = [cell.difference for cell in found if cell.difference]
    answers = iter(corrected(study, asked))
    return Tuning(
        tuple(replace(of, difference=next(answers)) if of.difference else of for of in found),
        *_who_was_tuned(study, set(by_cell), tuned, untuned, values_of),
        tuple(_costs(by_cell, runs.cells, tuned)),
        tuple(for_all_tasks(study, by_cell, runs.cells, values_of_trial)),
    )


def for_all_tasks(
    study: StudyInfo,
    by_cell: Mapping[tuple[str, str], Sequence[Trial]],
    cells: Mapping[str, Cell],
    values_of: ValuesOf,
) -> Iterator[ForAllTasks]:
    """Choose values of each method for all tasks together: see the record.

    Left out are methods that lack a task, or whose trials differ between tasks, and trials of which
    a run failed or that have one seed, which tells no error.
    """
    for method in dict.fromkeys(method for method, _ in by_cell):
        tried = [by_cell.get((method, task)) for task in study.main_metrics]
        whole = [trials for trials in tried if trials]
        listed = [[trial.values for trial in trials] for trials in whole]
        if len(whole) < len(tried) or any(values != listed[0] for values in listed):
            continue
        scored = []
        for trials in zip(*whole, strict=True):
            found = [cells.get(trial.place) for trial in trials]
            sound = [cell for cell in found if cell and is_whole(cell) and len(cell.seeds) > 1]
            if len(sound) == len(trials):
                metrics = [study.main_metrics[trial.task] for trial in trials]
                each = zip(sound, metrics, strict=True)
                mean = chance.over_tasks([chance.two_way(values_of(c)[m]) for c, m in each])
                scored.append((mean, trials[0].values))
        if scored:
            most, best = max(scored, key=lambda of: of[0].mean)
            near = [of for of in scored if of[0].mean >= most.mean - most.error]
            least, values = min(near, key=lambda of: tuple(of[1].values()))
            yield ForAllTasks(method, values, least.mean, best, most.mean, most.error)


def expected_best(scores: Sequence[float]) -> list[float]:
    """Return the expected highest of n scores drawn with replacement, for n from 1 to all of them.

    With P(V <= v) the share of scores up to v, it is the sum over scores of
    v x (P(V <= v)^n - P(V < v)^n). Source: Dodge et al. 2019, Show Your Work: Improved Reporting of
    Experimental Results, section 3, expected validation performance.
    """
    rising, all_of_them = sorted(scores), len(scores)
    return [
        sum(
            score * ((place / all_of_them) ** n - ((place - 1) / all_of_them) ** n)
            for place, score in enumerate(rising, 1)
        )
        for n in range(1, all_of_them + 1)
    ]


def edges_of(trials: Sequence[Trial], chosen: Mapping[str, float]) -> dict[str, str]:
    """Return the hyperparameters of which the lowest or the highest value listed was chosen.

    One value is no list, and what is no number has no order.
    """
    found = {}
    for name, value in chosen.items():
        listed = [trial.values[name] for trial in trials]
        if not all(isinstance(of, (int, float)) and not isinstance(of, bool) for of in listed):
            continue
        lowest, highest = min(listed), max(listed)
        if lowest < highest and value in (lowest, highest):
            found[name] = "lowest" if value == lowest else "highest"
    return found


def _tuned_cell(
    study: StudyInfo,
    trials: Sequence[Trial],
    runs: TrialRuns,
    tuned: Cell | None,
    untuned: Cell | None,
    values_of_trial: ValuesOf,
    values_of: ValuesOf,
) -> TunedCell:
    method, task = trials[0].method, trials[0].task
    metric, winner = study.main_metrics[task], choose(trials, runs.cells, study.main_metrics[task])
    cells = [runs.cells.get(trial.place) for trial in trials]
    # What failed found nothing better than a constant: equal budgets count it as a trial.
    baseline = runs.cells[winner.place].baseline[metric]
    scores = [
        fmean(cell.scores(metric).values()) if cell and is_whole(cell) else baseline
        for cell in cells
    ]
    difference, without = None, ""
    if untuned is None:
        without = UNCHANGED
    elif tuned is None or not is_whole(untuned):
        without = f"the {'untuned' if tuned else 'tuned'} result is missing"
    else:
        difference = _difference(study, "tuned", tuned, untuned, values_of)
        # To learn by being tuned is a change; only where neither has, nothing is compared.
        neither = len(difference.unlearned) == 2
        difference = replace(difference, unlearned=(method,) if neither else ())
    return TunedCell(
        method,
        task,
        metric,
        runs.cells[winner.place].data["validation"].rows,
        tuple(
            ScoredTrial(
                trial.values, _scored(cell, metric, values_of_trial) if cell else Scored(n=0)
            )
            for trial, cell in zip(trials, cells, strict=True)
        ),
        winner.values,
        edges_of(trials, winner.values),
        tuple(expected_best(scores)),
        _scored(tuned, metric, values_of) if tuned else None,
        _scored(untuned, metric, values_of) if untuned else None,
        difference,
        without,
    )


def _scored(cell: Cell, metric: str, values_of: ValuesOf) -> Scored:
    failed = tuple(cell.failed)
    if not cell.seeds:
        return Scored(n=0, failed=failed)
    values = values_of(cell)[metric]
    reported, mean = (fmean(cell.scores(metric, at).values()) for at in (None, cell.judged))
    low, high = None, None
    if len(cell.seeds) > 1:
        reach = chance.reach(chance.two_way(values))
        low, high = mean - reach, mean + reach
    return Scored(
        len(cell.seeds), reported, mean, low, high, _has_learned(cell, metric, values), failed
    )


def _has_learned(cell: Cell, metric: str, values: chance.Values) -> bool:
    return not any(row.whole for row in not_learned(cell, metric, values))


def _difference(
    study: StudyInfo, family: Family, ours: Cell, theirs: Cell, values_of: ValuesOf
) -> Difference:
    metric = study.main_metrics[ours.task]
    values = [values_of(cell)[metric] for cell in (ours, theirs)]
    learned = [
        _has_learned(cell, metric, of) for cell, of in zip((ours, theirs), values, strict=True)
    ]
    return Difference(
        **vars(paired((ours, values[0]), (theirs, values[1]), study.equivalence_margin)),
        task=ours.task,
        metric=metric,
        evaluation=study.judged,
        method=ours.method,
        reference=theirs.method,
        family=family,
        unlearned=tuple(
            cell.method for cell, well in zip((ours, theirs), learned, strict=True) if not well
        ),
    )


def _who_was_tuned(
    study: StudyInfo,
    trials_of: set[tuple[str, str]],
    tuned: Cells,
    untuned: Cells,
    values_of: ValuesOf,
) -> tuple[tuple[WhoWasTuned, ...], int]:
    """Compare LoRA with full fine-tuning as either, both or neither is tuned, task by task.

    Also return how many different questions these are.

    A method whose winner is what the study had is the same, tuned or not: what it then asks twice
    counts once among the questions that are corrected together.
    """
    lora, full = study.lora, study.full
    if not lora or not full:
        return (), 0
    asked: dict[tuple[str, str, str], Difference] = {}
    found: list[tuple[tuple[str, ...], tuple[str, str, str]]] = []
    for task in study.main_metrics:
        if not {(lora.name, task), (full.name, task)} <= trials_of:
            continue
        for names in ((lora.name, full.name), (lora.name,), (full.name,), ()):
            ours, theirs = (
                tuned.get(of) if of[0] in names else untuned.get(of, tuned.get(of))
                for of in ((lora.name, task), (full.name, task))
            )
            if ours and theirs and is_whole(ours) and is_whole(theirs):
                key = task, ours.variant, theirs.variant
                found.append((names, key))
                if key not in asked:
                    asked[key] = _difference(study, "who_was_tuned", ours, theirs, values_of)
    answers = dict(zip(asked, corrected(study, list(asked.values())), strict=True))
    return tuple(WhoWasTuned(names, answers[key]) for names, key in found), len(asked)


def _costs(
    by_cell: Mapping[tuple[str, str], Sequence[Trial]], cells: Mapping[str, Cell], tuned: Cells
) -> list[TuningCost]:
    found = []
    for method in dict.fromkeys(method for method, _ in by_cell):
        tasks = {of: trials for of, trials in by_cell.items() if of[0] == method}
        trials = [cells[t.place] for of in tasks.values() for t in of if t.place in cells]
        final = [tuned[of] for of in tasks if of in tuned]
        runs, steps = _counted(trials)
        final_runs, final_steps = _counted(final)
        failed = sum(len(cell.failed) for cell in trials)
        ratio = steps / final_steps if final_steps else None
        found.append(
            TuningCost(method, runs + failed, failed, steps, final_runs, final_steps, ratio)
        )
    return found


def _counted(cells: Sequence[Cell]) -> tuple[int, int]:
    """Return how many runs have scores, and their optimiser steps until their last evaluation."""
    runs = [run for cell in cells for run in cell.seeds.values()]
    return len(runs), sum(run.last.step for run in runs)
