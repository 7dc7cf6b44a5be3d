"""What the published tables say, row by row, beside what this study found.

A row is like ours if model, start, rank, weights and parameters agree; schedules, lengths and other
hyperparameters are what a study's own file tells of. What is unlike is shown, with the reason, and
decides nothing. A row without a counterpart here is kept, with `ours` empty and the reason noted.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

from peft_study.errors import nearest
from peft_study.findings.printed import CITATIONS, OUR_NAMES, SCORES, Printed, printed_rows
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import measured_with
from peft_study.methods import METHODS
from peft_study.records import Record
from peft_study.records.scores import CellStatistics, StabilityPoint, SweepRow
from peft_study.records.study import MethodInfo, StudyInfo

STARTS = {"encoder": "the encoder", "mnli": "weights adapted to mnli"}
MATCHED = "ours is of the matched rows, as theirs"
SAME_SIZE = 0.15  # by how much the printed size of a method may differ from ours, as a share


class Ours(Record):
    """What this study found for a row, or why it has nothing; `note` says why if it is not like."""

    value: float | None = None
    std: float | None = None
    n: int | None = None
    note: str = ""
    like: bool = True


def published(results: Results) -> list[PublishedRow]:
    """Return the rows of the tables that the study names, each with what it found or why not.

    `ours` is a median over seeds, `difference` ours minus published, `like` whether the two are
    alike enough for that to mean something. Scores and percentages are fractions, parameters
    millions, and the names of other metrics have their units.
    """
    rows = [row for row in printed_rows() if not row.names.isdisjoint(results.study.published)]
    return [_beside(row, rows, results) for row in rows]


def scored_by(row: PublishedRow) -> str:
    """Return the metric by which ours is scored for a row of scores."""
    return "accuracy_matched" if MATCHED in (row.note or "") else row.metric


def of_own_settings(row: PublishedRow, study: StudyInfo) -> bool:
    """Tell whether a row is of its method's own rank and weights here, not of the sweep's."""
    method = next(method for method in study.methods if method.name == row.method)
    weights = set(row.weights)
    size = method.rank or method.bottleneck or row.rank
    return row.rank in (None, size) and weights in (set(), set(method.weights) or weights)


def check_published(names: list[str]) -> list[str]:
    """Return a problem for each name that no published row has."""
    known = set().union(*(row.names for row in printed_rows()))
    return [f"published: got '{n}'; {nearest(n, known)}" for n in names if n not in known]


def first_epoch(results: Results, task: str, method: str, end: float = 1) -> StabilityPoint | None:
    """Return the row of `stability` of the last evaluation within the first epoch, or by `end`."""
    rows = [r for r in results.stability if (r.task, r.method) == (task, method)]
    return max((r for r in rows if r.epoch <= end), key=lambda r: r.epoch, default=None)


def _beside(row: Printed, rows: list[Printed], results: Results) -> PublishedRow:
    ours, value = _ours(row, rows, results), row.number(row.value)
    own = _own(row, rows, results)
    size, start = _size(row, rows), "starts from MNLI" if row.start == "mnli" else ""
    notes = f"{size}M parameters" if size else "", start, row.note, ours.note
    return PublishedRow(
        source=row.source,
        table=row.table,
        citation=f"{CITATIONS[row.source]}, {row.place}",
        model=row.model,
        method=own.name if own else row.name,
        weights=row.adapted,
        rank=int(row.rank) if row.rank else None,
        task=row.task or None,
        metric=row.metric.removesuffix("_percent").removesuffix("_overall"),
        is_fraction=row.is_fraction,
        published=value,
        published_std=row.number(row.std) if row.std else None,
        published_seeds=int(row.seeds) if row.seeds else None,
        ours=ours.value,
        ours_std=ours.std,
        n=ours.n,
        difference=None if ours.value is None else ours.value - value,
        like=ours.value is not None and ours.like,
        note="; ".join(filter(None, notes)) or None,
    )


def _size(row: Printed, rows: list[Printed]) -> str:
    """Return a row's millions of parameters where its table has its method in several sizes."""
    of = row.source, row.table, row.model, row.method
    same = [r for r in rows if (r.source, r.table, r.model, r.method) == of]
    return row.trainable_params_m if len({r.trainable_params_m for r in same} - {""}) > 1 else ""


def _ours(row: Printed, rows: list[Printed], results: Results) -> Ours:
    """Find what this study has for a row, and in what that is unlike it, or say why it has none."""
    if row.metric == "average":
        return _average(row, rows, results)
    study, own = results.study, _own(row, rows, results)
    if not own and not (row.name == "lora" and study.sweep.ranks):
        if any(method.kind == row.name for method in study.methods):
            return Ours(note="this study has it with other settings alone")
        known = row.name in METHODS
        return Ours(note="not part of this study" if known else "no method of this project")
    if row.task and row.task not in study.main_metrics:
        return Ours(note="not a task of this study")
    apart = _settings(row, own, _size(row, rows), results) if own else []
    printed, row = row, replace(row, method=own.name) if own else row
    found = _swept(printed, results) if row.metric in SCORES and (apart or not own) else None
    if found and (found.value is not None or not own):
        apart = []  # The sweep has the row's own settings.
    elif own and row.task and not study.trains(own.name, row.task):
        found = Ours(note="this study does not train it on this task")
    elif own and row.metric in SCORES:
        found = _scored(row, results)
    elif own:
        found = FOUND_BY.get(row.metric.partition("_")[0], _cost)(row, results)
    if not found or found.value is None:
        return found or Ours(note="not part of this study")
    apart += [_start(row, results)]
    if study.model.short != row.model:
        apart += [f"ours is of another model, {study.model.short}: levels are not comparable"]
    note = "; ".join(filter(None, (*apart, found.note)))
    return replace(found, note=note, like=found.like and not any(apart))


def _own(row: Printed, rows: list[Printed], results: Results) -> MethodInfo | None:
    """Return the study's method that a row is of: the same by settings goes before the same name.

    A recipe stands for a method that it is like if the row's settings are its own.
    """
    # No recipe whose name a source has for something else.
    of = [m for m in results.study.methods if row.name in (m.published or m.name, m.kind)]
    of = [m for m in of if m.name not in OUR_NAMES]
    size = _size(row, rows)
    same = [m for m in of if not _settings(row, m, size, results)]
    return next(iter([*same, *(m for m in of if (m.published or m.name) == row.name)]), None)


def _settings(row: Printed, own: MethodInfo, size: str, results: Results) -> list[str]:
    """Say in what our method is set up otherwise than the row's, as far as it is known."""
    named = (("r", own.rank), ("bottleneck", own.bottleneck))
    apart = [
        f"ours has {name} {ours}"
        for name, ours in named
        if row.rank and ours not in (None, int(row.rank))
    ]
    if row.weights and own.weights and set(own.weights) != set(row.adapted):
        apart.append(f"ours adapts {'+'.join(own.weights)}")
    millions = _parameters(replace(row, method=own.name), results).value
    if size and millions is not None and abs(millions - float(size)) > SAME_SIZE * float(size):
        apart.append(f"ours has {millions:.1f}M parameters")
    return apart


def _start(row: Printed, results: Results) -> str:
    """Say what ours starts from where the row's cell starts from elsewhere; "" where it does not.

    A sweep starts from the encoder: its task is none of those that start from another.
    """
    init, ours = results.study.mnli_init, STARTS["encoder"]
    if init.mode != "none" and row.task in init.tasks:
        one_for_all = init.mode == "full_ft" and not _is(row, "full_ft", results)
        ours = f"{'an encoder fine-tuned on' if one_for_all else 'weights adapted to'} {init.task}"
    return "" if ours == STARTS.get(row.start, ours) else f"ours starts from {ours}"


def _swept(row: Printed, results: Results) -> Ours | None:
    """Return what the sweep has for a row; None where the study has no sweep of its method."""
    sweep = results.study.sweep
    if row.name != "lora" or not sweep.ranks:
        return None
    sets, ranks = [set(weights) for weights in sweep.weights], [str(rank) for rank in sweep.ranks]
    if row.task != sweep.task:
        return Ours(note=f"the sweep is of {sweep.task}")
    if set(row.adapted) not in sets or row.rank not in ("", *ranks):
        return Ours(note="the sweep does not have these weights at this rank")
    cells: dict[int, dict[str, SweepRow]] = {}
    for cell in results.sweep:
        same = cell.task == row.task and set(cell.weights) == set(row.adapted)
        if same and row.rank in ("", str(cell.rank)):
            cells.setdefault(cell.rank, {})[cell.metric] = cell
    found = [_score(row, by_metric) for by_metric in cells.values()]
    if row.rank and found:
        return found[0]
    values = [ours.value for ours in found if ours.value is not None]
    if not values:
        return Ours(note="this cell of the sweep has no results")
    shown = ", ".join(map(str, sorted(cells)))
    note = f"of which rank is not said: ours is the mean and deviation over ranks {shown}"
    std = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.fmean(values), std, len(values), note, like=False)


def _average(row: Printed, rows: list[Printed], results: Results) -> Ours:
    """Return the mean of the medians that this study has for a row of a table, if it has all."""
    keys = ("source", "table", "model", "method", "trainable_params_m")
    of = {key: getattr(row, key) for key in keys}
    parts = [r for r in rows if r.metric in SCORES and of.items() <= vars(r).items()]
    found = {part.task: _ours(part, rows, results) for part in parts}
    values = [ours.value for ours in found.values() if ours.value is not None]
    if len(values) < len(found):
        lacking = {task: ours.note for task, ours in found.items() if ours.value is None}
        same = len(lacking) == len(found) and len(set(lacking.values())) == 1
        nothing = next(iter(lacking.values())) if same else f"no score on {', '.join(lacking)}"
        return Ours(note=nothing)
    note = f"ours is the mean of the medians of its {len(found)} tasks"
    if unlike := {task: ours.note for task, ours in found.items() if not ours.like}:
        why = ", ".join(dict.fromkeys(unlike.values()))
        note += f", unlike on {', '.join(unlike)}: {why}"
    return Ours(statistics.fmean(values), note=note, like=not unlike)


def _scored(row: Printed, results: Results) -> Ours:
    """Return the score of a method's own cell."""
    of, cells = (row.task, row.name, results.study.report), results.statistics.cells
    cell = {c.metric: c for c in cells if (c.task, c.method, c.evaluation) == of}
    if cell:
        return _score(row, cell)
    gaps = results.statistics.gaps
    why = [gap.reason for gap in gaps if (gap.method, gap.task) == (row.name, row.task)]
    return Ours(note=": ".join(["this cell has no results", *why[:1]]))


def _score(row: Printed, cell: Mapping[str, CellStatistics | SweepRow]) -> Ours:
    """Return a cell's score by a row's metric; `cell` holds what is known by metric."""
    metric, note = row.metric.removesuffix("_overall"), ""
    if (row.task, row.metric) == ("mnli", "accuracy"):
        # Such rows are of the matched part (Hu et al., table 15; the script of Chu et al.).
        note = "ours is of all rows, theirs of the matched ones"
        if "accuracy_matched" in cell:
            metric, note = "accuracy_matched", MATCHED
    if metric not in cell:
        return Ours(note=f"ours has no {metric}")
    return Ours(cell[metric].median, cell[metric].std, cell[metric].n, note)


def _variation(row: Printed, results: Results) -> Ours:
    """Return the coefficient of variation at the end of the first or the last epoch."""
    end = 1 if row.metric == "cv_first_epoch_percent" else math.inf
    found = first_epoch(results, row.task, row.name, end)
    if found is None or found.cv is None:
        return Ours(note="ours has no coefficient of variation")
    return Ours(found.cv, n=found.n)


def _parameters(row: Printed, results: Results) -> Ours:
    """Return the millions of trained parameters, the head only of full fine-tuning."""
    mine = [cell.trainable for (name, _), cell in results.cells.items() if name == row.name]
    counts = [found for found in mine if found]
    if not counts:
        return Ours(
            note="what it trains is not known" if mine else "this study has no results of it"
        )
    whole = _is(row, "full_ft", results)
    return Ours(max(n.total if whole else n.adapter for n in counts) / 1e6)


def _share(row: Printed, results: Results) -> Ours:
    """Return a method's median as a share of full fine-tuning's, in the task's main metric."""
    at, metric = results.statistics.at(results.study.report), results.study.main_metrics[row.task]
    ours, full = (
        at.get((name, row.task, metric)) for name in (row.name, results.study.role("full_ft"))
    )
    if not ours or not full or not full.median:
        return Ours(note="not both it and full fine-tuning have results")
    return Ours(ours.median / full.median, n=ours.n, note="ours is the ratio of the medians")


def _iso_accuracy(row: Printed, results: Results) -> Ours:
    """Return what it took until the equal score: the median over seeds, if all reached it."""
    iso, of = results.iso_accuracy, (row.task, row.name)
    runs = [run for run in iso.runs if (run.task, run.method) == of] if iso else []
    if not runs:
        return Ours(note="no equal score was computed")
    spent = {
        "iso_accuracy_epochs": [run.epoch for run in runs],
        "iso_accuracy_seconds": [run.seconds for run in runs],
        "iso_accuracy_energy_kj": [run.joules and 1e-3 * run.joules for run in runs],
    }[row.metric]
    values = [value for value in spent if value is not None]
    if row.metric == "iso_accuracy_energy_kj" and not (iso and iso.energy.measured):
        return Ours(note="no energy was measured")
    if not values or len(values) < len(runs):
        reached = sum(run.reached for run in runs)
        why = "no energy was measured on this task" if reached == len(runs) else ""
        return Ours(note=why or f"{reached} of {len(runs)} runs reach the equal score")
    like = row.metric == "iso_accuracy_epochs"
    std = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.median(values), std, len(values), "" if like else "other hardware", like)


def _cost(row: Printed, results: Results) -> Ours:
    """Return a cost from the profile: of its tasks alone, and of this machine."""
    profile, method = results.profile, row.name
    costs = profile.on(row.task) if profile else None
    if profile is None or costs is None:
        return Ours(note="not measured on this task")
    if row.metric == "gpu_memory_mean_mb" and not profile.machine.gpu:
        return Ours(note="not measured on a GPU")
    if row.metric == "power_mean_w" and not profile.energy.measured:
        return Ours(note="no energy was measured")
    step, memory = costs.step_of(method), costs.memory_of(method)
    energy, epoch = costs.energy_of(method), step and step.seconds_per_epoch
    # Full fine-tuning leaves the base model as it is; our LoRA is merged, as the source's is.
    modules = None if _is(row, "full_ft", results) else method
    latency = costs.inference_of(modules, merged=_is(row, "lora", results))
    times = latency and latency.validation_set.seconds
    found = {
        "seconds_per_epoch": step and epoch and (step.recipe, epoch.mean, epoch.std),
        "inference_seconds": latency and times and (latency.recipe, times.median, None),
        # By NVML, the only instrument that the source names.
        "gpu_memory_mean_mb": memory and (memory.recipe, memory.as_measured.mean.bytes / 1e6, None),
        "power_mean_w": energy and (energy.recipe, energy.watts, None),
    }.get(row.metric)
    if not found:
        return Ours(note="not measured")
    recipe, value, std = found
    note = f"other hardware{measured_with(recipe, results.study)}"
    return Ours(value, std, note=note, like=False)


def _time_saved(row: Printed, results: Results) -> Ours:
    """Return the share of full fine-tuning's seconds an epoch that a method does not need."""
    of = replace(row, metric="seconds_per_epoch")
    full_ft = replace(of, method=results.study.role("full_ft"))
    ours, full = _cost(of, results), _cost(full_ft, results)
    if ours.value is None or full.value is None:
        return replace(full if full.value is None else ours, value=None, std=None)
    return Ours(1 - ours.value / full.value, note=ours.note, like=False)


def _latency(row: Printed, results: Results) -> Ours:
    """Return the milliseconds of one example, or what they are above the pretrained model's."""
    if not row.metric.removesuffix("_percent").endswith("_batch_1"):
        return Ours(note="ours is measured one by one, and of the whole validation set")
    tasks = results.profile.tasks if results.profile else ()
    merged = _is(row, "lora", results)
    found = [task.inference_of(row.name, merged=merged) for task in tasks[:1]]
    cost = found[0] if found else None
    if not cost:
        return Ours(note="not measured")
    one = cost.one_by_one
    value = one.ratio.value - 1 if row.metric.startswith("overhead") else 1e3 * one.seconds.median
    note = f"other hardware and texts{measured_with(cost.recipe, results.study)}"
    return Ours(value, n=one.n, note=note, like=False)


def _is(row: Printed, kind: str, results: Results) -> bool:
    """Tell whether a row's method is of a kind, also one that the study does not have."""
    own = results.study.method(row.name)
    return (own.kind if own else row.name) == kind


# By the first word of a metric; all others are costs.
FOUND_BY: dict[str, Callable[[Printed, Results], Ours]] = {
    "cv": _variation,
    "trainable": _parameters,
    "share": _share,
    "iso": _iso_accuracy,
    "time": _time_saved,
    "latency": _latency,
    "overhead": _latency,
}
