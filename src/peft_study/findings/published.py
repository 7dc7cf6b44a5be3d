"""What the published tables say, row by row, beside what this study found.

`published.csv` holds the rows of the sources, in their own form: scores in hundredths (`liu`:
correlations, as fractions), coefficients of variation in percent, everything else in the unit that
its metric names. A row without a counterpart here is kept, with `ours` empty and the reason noted.
"""

import csv
import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from peft_study.errors import nearest
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import measured_with
from peft_study.methods import METHODS
from peft_study.records import Record
from peft_study.records.scores import CellStatistics, StabilityPoint, SweepRow

OUR_NAMES = {"lora_restricted": "lora", "loralib": "loralib_lora"}  # of methods named otherwise
CITATIONS = {"hu2021": "Hu et al. 2021", "chu": "Chu et al.", "liu": "Liu et al."}
CITATIONS |= {"keyquery": "Bölöni-Turgut et al. 2025", "tiny": '"Tiny Reproduction: LoRA"'}
WEIGHTS = ("query", "key", "value", "output")
SCORES = ("accuracy", "accuracy_overall", "matthews", "pearson")
VARIATIONS = ("cv_first_epoch_percent", "cv_last_epoch_percent")
SAME_SIZE = 0.15  # by how much the printed size of a method may differ from ours, as a share


class Printed(Record):
    """A row of `published.csv`, as printed, its method named as ours; what it lacks is ""."""

    source: str
    table: str
    model: str
    method: str
    trainable_params_m: str
    weights: str
    rank: str
    task: str
    metric: str
    value: str
    std: str
    seeds: str
    note: str

    @property
    def names(self) -> set[str]:
        """What it is selected by: its table, and its table with the model."""
        table = f"{self.source} table {self.table}"
        return {table, f"{table} {self.model}"}

    @property
    def adapted(self) -> tuple[str, ...]:
        """The weights that it adapts, in the order of this project."""
        return tuple(name for name in WEIGHTS if name in self.weights.split(","))

    @property
    def place(self) -> str:
        """Where in its source it is."""
        if self.source == "liu":
            return f"section III.{self.table}"
        if self.table.startswith("Figure"):
            return self.table.lower()
        tables = self.table.replace("/", " and ")
        return f"{'table' if tables == self.table else 'tables'} {tables}"

    def number(self, text: str) -> float:
        """Return a number of it, scores and coefficients of variation as fractions."""
        scores = SCORES if self.source != "liu" else ()
        # Rounded, or 87.6 / 100 would be 0.8759999999999999.
        return round(float(text) / 100, 6) if self.metric in VARIATIONS + scores else float(text)


class Ours(Record):
    """What this study found for a row; `like` says that the difference means something."""

    value: float | None = None
    std: float | None = None
    n: int | None = None
    note: str = ""
    like: bool = True


def published(results: Results) -> list[PublishedRow]:
    """Return the published rows that this study reproduces, with what it found.

    `ours` is a median over seeds, `difference` ours minus published where like is compared with
    like. Scores and coefficients of variation are fractions, parameters millions, and the names of
    other metrics have their units.
    """
    rows = [row for row in _printed() if not row.names.isdisjoint(results.study.published)]
    rows = [row for row in rows if row.task in ("", *results.study.main_metrics)]
    return [_beside(row, rows, results) for row in rows]


def check_published(names: list[str]) -> list[str]:
    """Return a problem for each name that no published row has."""
    known = set().union(*(row.names for row in _printed()))
    return [f"published: got '{n}'; {nearest(n, known)}" for n in names if n not in known]


def first_epoch(results: Results, task: str, method: str, end: float = 1) -> StabilityPoint | None:
    """Return the row of `stability` of the last evaluation within the first epoch, or by `end`."""
    rows = [r for r in results.stability if (r.task, r.method) == (task, method)]
    return max((r for r in rows if r.epoch <= end), key=lambda r: r.epoch, default=None)


def _printed() -> list[Printed]:
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        rows = [Printed(**row) for row in csv.DictReader(file)]
    return [replace(row, method=OUR_NAMES.get(row.method, row.method)) for row in rows]


def _beside(row: Printed, rows: list[Printed], results: Results) -> PublishedRow:
    of = {key: getattr(row, key) for key in ("source", "table", "model", "method")}
    sizes = {r.trainable_params_m for r in rows if of.items() <= vars(r).items()} - {""}
    size = row.trainable_params_m if len(sizes) > 1 else ""  # says which of them it is
    ours, value = _ours(row, float(size or 0), results), row.number(row.value)
    model, unlike = results.study.model.short, ""
    if ours.value is not None and model != row.model:
        unlike = f"ours is of another model, {model}: levels are not comparable"
    notes = f"{size}M parameters" if size else "", row.note, ours.note, unlike
    return PublishedRow(
        **of,
        citation=f"{CITATIONS[row.source]}, {row.place}",
        weights=row.adapted,
        rank=int(row.rank) if row.rank else None,
        task=row.task or None,
        metric=row.metric.removesuffix("_percent").removesuffix("_overall"),
        is_fraction=row.metric in SCORES + VARIATIONS,
        published=value,
        published_std=row.number(row.std) if row.std else None,
        ours=ours.value,
        ours_std=ours.std,
        n=ours.n,
        difference=None if ours.value is None or not ours.like or unlike else ours.value - value,
        note="; ".join(filter(None, notes)) or None,
    )


def _ours(row: Printed, size: float, results: Results) -> Ours:
    """Find what this study has for a row, or say why it has nothing."""
    if row.method not in METHODS:
        return Ours(note="no method of this project")
    if problem := _set_up_otherwise(row, size, results):
        return (row.metric in SCORES and _swept(row, results)) or Ours(note=problem)
    if row.metric not in SCORES:
        return FOUND_BY.get(row.metric.partition("_")[0], _cost)(row, results)
    of, cells = (row.task, row.method, results.study.report), results.statistics.cells
    cell = {c.metric: c for c in cells if (c.task, c.method, c.evaluation) == of}
    return _score(row, cell) if cell else Ours(note="this cell has no results")


def _swept(row: Printed, results: Results) -> Ours | None:
    """Return what the sweep has for a row; None where the row is none of the sweep's."""
    if row.method != "lora" or "MNLI-adapted" in row.note:  # a sweep starts from the encoder
        return None
    cells: dict[int, dict[str, SweepRow]] = {}
    for cell in results.sweep:
        same = cell.task == row.task and set(cell.weights) == set(row.adapted)
        if same and row.rank in ("", str(cell.rank)):
            cells.setdefault(cell.rank, {})[cell.metric] = cell
    found = [_score(row, by_metric) for by_metric in cells.values()]
    values = [ours.value for ours in found if ours.value is not None]
    if row.rank or not values:
        return found[0] if found else None
    ranks = ", ".join(map(str, sorted(cells)))
    note = f"of which rank is not said: ours is the mean and deviation over ranks {ranks}"
    std = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.fmean(values), std, len(values), note, False)


def _set_up_otherwise(row: Printed, size: float, results: Results) -> str:
    """Say in what our method is set up otherwise than the row's; "" if in nothing that is known."""
    init, method = results.study.mnli_init, results.study.method(row.method)
    if method is None:
        return "not part of this study"
    for name, ours in (("r", method.rank), ("bottleneck", method.bottleneck)):
        if row.rank and ours not in (None, int(row.rank)):
            return f"ours has {name} {ours}"
    if row.weights and method.weights and set(method.weights) != set(row.adapted):
        return f"ours adapts {'+'.join(method.weights)}"
    started = init.mode != "none" and bool(init.tasks)
    if "MNLI-adapted" in row.note and not started:
        return "ours does not start from an intermediate task"
    if ("restricted setup" in row.note or "no MNLI start" in row.note) and started:
        return "ours starts from an intermediate task"
    millions = _parameters(row, results).value
    if size and millions is not None and abs(millions - size) > SAME_SIZE * size:
        return f"ours has {millions:.1f}M parameters"
    return ""


def _score(row: Printed, cell: Mapping[str, CellStatistics | SweepRow]) -> Ours:
    """Return a cell's score by a row's metric; `cell` holds what is known by metric."""
    metric, note = row.metric.removesuffix("_overall"), ""
    if (row.task, row.metric) == ("mnli", "accuracy"):
        # Such rows are of the matched part (Hu et al., table 15; the script of Chu et al.).
        note = "ours is of all rows, theirs of the matched ones"
        if "accuracy_matched" in cell:
            metric, note = "accuracy_matched", "ours is of the matched rows, as theirs"
    if metric not in cell:
        return Ours(note=f"ours has no {metric}")
    return Ours(cell[metric].median, cell[metric].std, cell[metric].n, note)


def _variation(row: Printed, results: Results) -> Ours:
    """Return the coefficient of variation at the end of the first or the last epoch."""
    end = 1 if row.metric == "cv_first_epoch_percent" else math.inf
    found = first_epoch(results, row.task, row.method, end)
    if found is None or found.cv is None:
        return Ours(note="ours has no coefficient of variation")
    return Ours(found.cv, n=found.n)


def _parameters(row: Printed, results: Results) -> Ours:
    """Return the millions of trained parameters, the head only of full fine-tuning."""
    counts = [cell.trainable for (name, _), cell in results.cells.items() if name == row.method]
    if not counts:
        return Ours(note="this study has no results of it")
    return Ours(max(n.total if row.method == "full_ft" else n.adapter for n in counts) / 1e6)


def _iso_accuracy(row: Printed, results: Results) -> Ours:
    """Return what it took until the equal score: the median over seeds, if all reached it."""
    iso, of = results.iso_accuracy, (row.task, row.method)
    runs = [run for run in iso.runs if (run.task, run.method) == of] if iso else []
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
        why = "no energy was measured on this task" if runs and reached == len(runs) else ""
        return Ours(note=why or f"{reached} of {len(runs)} runs reach the equal score")
    like = row.metric == "iso_accuracy_epochs"
    std = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.median(values), std, len(values), "" if like else "other hardware", like)


def _cost(row: Printed, results: Results) -> Ours:
    """Return a cost from the profile: of its tasks alone, and of this machine."""
    profile, method = results.profile, row.method
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
    modules = None if METHODS[method].family == "full" else method
    latency = costs.inference_of(modules, merged=method == "lora")
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


FOUND_BY = {"cv": _variation, "trainable": _parameters, "iso": _iso_accuracy}  # by a metric's start
