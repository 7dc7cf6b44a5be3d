"""What the study found, read from the files that its stages wrote: here and nowhere else."""

from dataclasses import field
from itertools import product
from pathlib import Path

from peft_study.files import read_json, read_record
from peft_study.findings.rows import CellValues, read_ids, read_rows
from peft_study.records import Record, costs, scores
from peft_study.records.certificates import Certificates
from peft_study.records.study import StudyInfo
from peft_study.records.tuning import TrialRuns, Tuning
from peft_study.records.variants import Ledger, VariantRuns, is_swept, is_untuned

METRICS = Path("metrics")


class Claim(Record):
    """A published claim and the verdict on it: an item of `metrics/claims.json`."""

    id: str
    title: str
    source: str
    statement: str
    quantity: str
    verdict: str
    finding: str
    settles: str | None
    differs: str | None
    files: tuple[str, ...]


class PublishedRow(Record):
    """A published number beside ours: an item of `metrics/published.json`.

    `difference` is ours minus published; where the two are not `like` it decides nothing, and the
    note says why.
    """

    source: str
    table: str
    citation: str
    model: str
    method: str
    weights: tuple[str, ...]
    rank: int | None
    task: str | None
    metric: str
    is_fraction: bool
    published: float
    published_std: float | None
    published_seeds: int | None
    ours: float | None
    ours_std: float | None
    n: int | None
    difference: float | None
    like: bool
    note: str | None


class FigureInfo(Record):
    """A figure's words and files: an item of `plots/figures.json`; see `findings.figures`."""

    name: str
    title: str
    caption: str
    alt: str
    unit: str
    sources: tuple[str, ...]
    data: str
    svg: str


class Results(Record):
    """Everything that findings are drawn from; what is missing is empty or None."""

    study: StudyInfo
    statistics: scores.Statistics
    cells: scores.Cells = field(default_factory=dict)  # those that have results
    profile: costs.Profile | None = None
    iso_accuracy: costs.IsoAccuracy | None = None
    stability: tuple[scores.StabilityPoint, ...] = ()
    curves: tuple[scores.CurvePoint, ...] = ()
    sweep: tuple[scores.SweepRow, ...] = ()
    sweep_curves: tuple[scores.CurvePoint, ...] = ()
    sweep_runs: tuple[scores.Cell, ...] = ()  # those that have results
    parity: costs.Parity | None = None
    certificates: Certificates | None = None
    ledger: Ledger | None = None
    tuning: Tuning | None = None

    @property
    def main_differences(self) -> list[scores.Difference]:
        """The differences in each task's main metric, as far as it decides."""
        main = {(task, of, self.study.judged) for task, of in self.study.main_metrics.items()}
        rows = self.statistics.differences
        return [row for row in rows if (row.task, row.metric, row.evaluation) in main]

    def main_differences_of(self, method: str, reference: str) -> list[scores.Difference]:
        """The differences of two methods in the main metrics, one a task, whoever is reference."""
        both = {method, reference}
        rows = [r for r in self.main_differences if {r.method, r.reference} == both]
        found = list({row.task: row for row in reversed(rows)}.values())[::-1]
        return [row if row.method == method else row.reversed() for row in found]

    @property
    def main_sweep(self) -> list[scores.SweepRow]:
        """The sweep's rows of its task's main metric."""
        main = self.study.main_metrics
        return [row for row in self.sweep if row.metric == main.get(row.task)]


def load_study_info() -> StudyInfo:
    """Read what findings say of the study."""
    return read_record(Path("configs/report.json"), StudyInfo)


def load_results() -> Results:
    """Read all files of a study's results."""
    study = load_study_info()
    return Results(
        study=study,
        statistics=read_record(METRICS / "statistics.json", scores.Statistics),
        cells=load_cells(study)[0],
        profile=load_profile(),
        iso_accuracy=read_record(METRICS / "iso_accuracy.json", costs.IsoAccuracy),
        stability=read_record(METRICS / "stability.json", tuple[scores.StabilityPoint, ...]),
        curves=read_record(METRICS / "curves.json", tuple[scores.CurvePoint, ...]),
        sweep=read_record(METRICS / "sweep.json", tuple[scores.SweepRow, ...]),
        sweep_curves=read_record(METRICS / "sweep_curves.json", tuple[scores.CurvePoint, ...]),
        sweep_runs=load_sweep(),
        parity=read_record(METRICS / "parity.json", costs.Parity),
        certificates=load_certificates(),
        ledger=load_ledger(),
        tuning=load_tuning(),
    )


def load_certificates() -> Certificates | None:
    """Read what was found of methods before they were trained; None where no stage needs it."""
    path = METRICS / "certificates.json"
    return read_record(path, Certificates) if path.is_file() else None


def load_ledger() -> Ledger | None:
    """Read what a reproduction hangs on; None where the study has no ledger, or none yet."""
    path = METRICS / "ledger.json"
    return read_record(path, Ledger) if path.is_file() and read_json(path) is not None else None


def load_variants(metrics: Path = METRICS) -> VariantRuns:
    """Read the scores of all variants, and what the ledger calls them."""
    return read_record(metrics / "runs/variants.json", VariantRuns)


def load_tuning() -> Tuning | None:
    """Read what tuning found; None where nothing was tuned."""
    path = METRICS / "tuning.json"
    return read_record(path, Tuning) if path.is_file() and read_json(path) else None


def load_profile() -> costs.Profile | None:
    """Read what methods cost; None where it was not measured."""
    path = METRICS / "profile.json"
    return None if read_json(path) is None else read_record(path, costs.Profile)


def load_cells(study: StudyInfo, metrics: Path = METRICS) -> tuple[scores.Cells, list[scores.Gap]]:
    """Read the scores of the study's cells, and name those that have none, with the reason."""
    cells, gaps = {}, []
    for method, task in product(study.labels, study.main_metrics):
        if not study.trains(method, task):
            continue
        path = metrics / "runs" / method / f"{task}.json"
        cell = read_record(path, scores.Cell) if path.is_file() else None
        if cell and not cell.failed:
            cells[method, task] = cell
        else:
            failed = cell.failed.items() if cell else ()
            why = "; ".join(f"seed {seed}: {text}" for seed, text in failed)
            gaps.append(scores.Gap(method, task, why or "it was not evaluated"))
    return cells, gaps


def load_sweep(metrics: Path = METRICS) -> tuple[scores.Cell, ...]:
    """Read the scores of the cells of the sweep, by weights and rank, without those that failed."""
    found = load_variants(metrics).cells
    sound = [cell for place, cell in found.items() if is_swept(place) and not cell.failed]
    return tuple(sorted(sound, key=lambda cell: (cell.weights, cell.rank)))


def load_trials(metrics: Path = METRICS) -> TrialRuns:
    """Read the trials of tuning; none where nothing was tuned."""
    path = metrics / "runs/trials.json"
    return read_record(path, TrialRuns) if path.is_file() else TrialRuns()


def load_untuned(metrics: Path = METRICS) -> scores.Cells:
    """Read the cells at each method's own values where tuning chose others, failed ones too."""
    path = metrics / "runs/variants.json"
    cells = load_variants(metrics).cells if path.is_file() else {}
    untuned = [cell for place, cell in cells.items() if is_untuned(place)]
    return {(cell.method, cell.task): cell for cell in untuned}


def load_trial_values(cell: scores.Cell, metrics: Path = METRICS) -> CellValues:
    """Read what the rows held out for choosing add to the scores of a trial."""
    return read_rows(metrics / "rows/trials" / f"{cell.variant}.parquet", cell)


def load_values(cell: scores.Cell, metrics: Path = METRICS) -> CellValues:
    """Read what held-out rows add to the scores of a cell of the study or of a variant."""
    return read_rows(_rows_of(cell, metrics), cell)


def load_ids(cell: scores.Cell, metrics: Path = METRICS) -> list[str]:
    """Read the ids of the held-out rows of a cell, in the order of `load_values`."""
    return read_ids(_rows_of(cell, metrics))


def _rows_of(cell: scores.Cell, metrics: Path) -> Path:
    where = f"variants/{cell.variant}" if cell.variant else f"{cell.method}/{cell.task}"
    return metrics / "rows" / f"{where}.parquet"
