"""Many runs: which of them are still to be trained, by whom, and what became of each."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import Timeout
from tqdm import tqdm

from peft_study.data.draws import rows_of
from peft_study.errors import StudyError
from peft_study.files import copy_folder, read_json, write_json
from peft_study.records import Record
from peft_study.run_config import ADAPTER, CellConfig, RunResult
from peft_study.running.store import RunStore, fingerprint, store_folder
from peft_study.stage_configs import InitConfig, Start, VariantCell
from peft_study.study import RunnerParams

START = "start.json"  # says, beside its weights, what a start is


class Cell(Record):
    """The runs of one configuration: a folder `seed-<n>/` in `directory` for each of its seeds.

    `data` is what `peft_study.data.prepare` wrote for the task, `start` as `train_run` has it.
    """

    config: CellConfig
    data: Path
    start: Path | None
    directory: Path


class Job(Record):
    """One run: a cell and one of its seeds."""

    cell: Cell
    seed: int
    fingerprint: str

    @property
    def data(self) -> Path:
        """The folder of the run's rows."""
        return rows_of(self.cell.data, self.seed)

    @property
    def directory(self) -> Path:
        """The folder that receives the run's files."""
        return self.cell.directory / f"seed-{self.seed}"

    def __str__(self) -> str:
        run, name = self.cell.config.run, self.cell.directory.name
        place = f" {name}" if name not in (run.method, run.task) else ""
        return f"{run.method} {run.task}{place} seed {self.seed}"


def run_cells(cells: list[Cell], runner: RunnerParams) -> None:
    """Train the runs of all `cells` that the run store does not have, and print a line for each.

    Raises StudyError: runs failed for reasons that the user can mend, or their processes were
    killed. All others are finished then, and in the run store; so is a run that diverged.
    """
    clock, waiting = time.perf_counter(), []
    store = RunStore(store_folder(), runner.store_gigabytes)
    for cell in cells:
        start = cell.start / START if cell.start else None
        failed = read_json(start)["failure"] if start and start.is_file() else None
        for seed in cell.config.seeds:
            if failed:
                job, failure = Job(cell, seed, ""), f"its start, the intermediate run: {failed}"
                write_json(job.directory / "run.json", {"seed": seed, "failure": failure})
                print(f"{job}: no result: {failure}")
                continue
            data = rows_of(cell.data, seed)
            job = Job(cell, seed, fingerprint(cell.config.run, seed, data, cell.start))
            if result := _stored(store, job):
                print(f"{job}: {result}, from the run store")
            else:
                waiting.append(job)
    if waiting:
        trained = _trained(waiting, runner, store)
        for job, result in (bar := tqdm(trained, total=len(waiting), disable=None)):
            bar.write(f"{job}: {result}", file=sys.stdout)
            sys.stdout.flush()
    place = os.path.commonpath([cell.directory for cell in cells]) if cells else "runs"
    number = sum(len(cell.config.seeds) for cell in cells)
    print(f"wrote {number} run(s) to {place}/, {time.perf_counter() - clock:.0f} s")


def train_starts(config: InitConfig, data: Path, directory: Path, runner: RunnerParams) -> None:
    """Train the intermediate runs, and write `<method>/start/`, what a method's tasks start from.

    A start holds no seconds: it changes when its weights do. Raises as `run_cells`.
    """
    cells = {name: Cell(cell, data, None, directory / name) for name, cell in config.cells.items()}
    if cells:
        run_cells(list(cells.values()), runner)
    else:
        print("mnli_init: no task starts from the intermediate task, nothing to train")
    directory.mkdir(exist_ok=True)  # a study of a sweep alone has no starts, but DVC wants a folder
    for method, source in config.starts.items():
        seed = config.cells[source].seeds[0] if source else None
        lay_out(
            directory / source / f"seed-{seed}" if source else None, directory / method / "start"
        )


def run_variants(
    starts: Mapping[str, Start],
    cells: Mapping[str, VariantCell],
    directory: Path,
    runner: RunnerParams,
) -> None:
    """Train what `cells` start from, by folder, then the cells, by place below `directory`.

    Raises as `run_cells`.
    """
    first = {Path(at): Cell(of.cell, Path(of.data), None, Path(at)) for at, of in starts.items()}
    if first:
        run_cells(list(first.values()), runner)
    for folder, start in first.items():
        lay_out(folder / f"seed-{start.config.seeds[0]}", folder / "start")
    wanted = [
        Cell(of.config, Path(of.data), Path(of.start) if of.start else None, directory / place)
        for place, of in cells.items()
    ]
    run_cells(wanted, runner)


def lay_out(run: Path | None, start: Path) -> None:
    """Write what tasks start from to `start`: the weights of a finished run, or none."""
    failure = read_json(run / "run.json").get("failure") if run else None
    if run and not failure:
        copy_folder(run / ADAPTER, start)
    write_json(start / START, {"intermediate": run is not None, "failure": failure})


def tell(problems: list[str]) -> None:
    """Raise a StudyError with a line for each problem, if any; the same of two runs is one."""
    if problems:
        raise StudyError("\nerror: ".join(dict.fromkeys(problems)))


def _trained(
    jobs: list[Job], runner: RunnerParams, store: RunStore
) -> Iterator[tuple[Job, RunResult]]:
    if runner.backend == "local":
        from peft_study.running.local import train
    elif find_spec("ray"):
        from peft_study.running.ray import train
    else:
        raise StudyError("runner.backend is 'ray', which is not installed; run 'make env'")
    return train(jobs, runner, store)


def _stored(store: RunStore, job: Job) -> RunResult | None:
    with suppress(Timeout), store.locked(job.fingerprint, timeout=0):
        return store.fetch(job.fingerprint, job.directory)
    return None  # another command trains it
