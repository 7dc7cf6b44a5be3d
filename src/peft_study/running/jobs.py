"""Many runs: single-threaded processes side by side, on this machine or, by Ray, on a cluster."""

import math
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout
from tqdm import tqdm

from peft_study.encoders.pretrained import model_config, model_folder
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.running.store import STORE, RunStore, fingerprint
from peft_study.study import RunnerParams

PROCESS_BYTES = 6e8  # Python, PyTorch and transformers, imported
FEW = 3  # jobs per core that may share it
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration, a run for each of its seeds.

    Attributes:
        config: as for `peft_study.training.loop.train_run`; so are `data` and `start`.
        directory: receives a folder `seed-<n>/` per seed.
    """

    config: dict[str, Any]
    data: Path
    start: Path | None
    directory: Path


@dataclass(frozen=True)
class Job:
    """One run: a cell and one of its seeds."""

    cell: Cell
    seed: int
    fingerprint: str

    @property
    def directory(self) -> Path:
        """The folder that receives the run's files."""
        return self.cell.directory / f"seed-{self.seed}"

    def __str__(self) -> str:
        config, name = self.cell.config, self.cell.directory.name
        place = f" {name}" if name not in (config["method"], config["task"]) else ""
        return f"{config['method']} {config['task']}{place} seed {self.seed}"


def run_cells(cells: list[Cell], runner: RunnerParams) -> None:
    """Train the runs of all `cells` that the run store does not have, and print a line for each.

    Raises:
        StudyError: a run failed for a reason that the user can mend, or its process was killed.
            The runs that were finished stay in the run store.
    """
    clock = time.perf_counter()
    store = RunStore(STORE, runner.store_gigabytes)
    jobs = [
        Job(cell, seed, fingerprint(cell.config, seed, cell.data, cell.start))
        for cell in cells
        for seed in cell.config["seeds"]
    ]
    waiting = []
    for job in jobs:
        if result := _stored(store, job):
            print(f"{job}: {_describe(result)}, from the run store")
        else:
            waiting.append(job)
    if waiting:
        if runner.backend == "ray":
            if not find_spec("ray"):
                raise StudyError("runner.backend is 'ray', which is not installed; run 'make env'")
            from peft_study.running.ray import train
        else:
            train = train_here
        progress = tqdm(train(waiting, runner, store), total=len(waiting), disable=None)
        for job, result in progress:
            progress.write(f"{job}: {_describe(result)}", file=sys.stdout)
            sys.stdout.flush()
    place = os.path.commonpath([cell.directory for cell in cells])
    print(f"wrote {len(jobs)} run(s) to {place}/, {time.perf_counter() - clock:.0f} s")


def train_here(
    jobs: list[Job], runner: RunnerParams, store: RunStore
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Train `jobs` in processes of this machine, yielding each with its result when it is done.

    The processes are forked from one that has imported everything, where the platform allows; the
    pretrained weights are mapped from their file, so that all processes share those not trained.
    """
    methods = {job.cell.config["method"] for job in jobs}
    # Forked from a server that has imported everything once, yet holds no threads of its own.
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if "forkserver" in kinds:
        modules = [f"peft_study.methods.{method}" for method in sorted(methods)]
        context.set_forkserver_preload(["peft_study.training.loop", *modules])
    with ProcessPoolExecutor(
        worker_count(jobs, runner.workers), mp_context=context, initializer=_die_with_parent
    ) as pool:
        futures = {pool.submit(_train, job, store, runner.checkpoint_seconds): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise StudyError(
                "a training process was killed, perhaps for want of memory; lower runner.workers "
                "and run the same command again: it goes on from the last checkpoints"
            ) from None
        except BaseException:
            # Their checkpoints stay: the next command goes on from there.
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def worker_count(jobs: Iterable[Job], workers: int | str) -> int:
    """Return how many of `jobs` to train at once: as said, or one per core as memory allows.

    A few jobs that do not divide by the cores share them all at once, so that none is idle at the
    end. On a GPU `auto` is one: how many fit on it is for the user to say.
    """
    jobs = list(jobs)
    if workers != "auto":
        return min(len(jobs), int(workers))
    if jobs[0].cell.config["train"]["device"] != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    cells = {job.cell.directory: job.cell for job in jobs}.values()
    largest = max(estimated_bytes(cell) for cell in cells)
    fitting = max(1, int(available_bytes() / largest))
    all_at_once = len(jobs) % cores and len(jobs) <= min(fitting, FEW * cores)
    return len(jobs) if all_at_once else min(len(jobs), cores, fitting)


def estimated_bytes(cell: Cell) -> float:
    """Estimate the peak memory of one of a cell's runs, in bytes, generously.

    Weights, in full fine-tuning also gradients, two moments and the copy of the best weights; and
    per layer and token about 20 activations of the hidden size, and three rows of attention.
    """
    model, revision = cell.config["model"], cell.config["model_revision"]
    weights = sum(f.stat().st_size for f in model_folder(model, revision).glob("*.safetensors"))
    shape = model_config(model, revision)
    longest = max(
        split["token_length_percentiles"]["100"]
        for split in read_json(cell.data / "summary.json")["splits"].values()
    )
    hyper = cell.config["train"]
    tokens = math.ceil(hyper["batch_size"] / hyper["gradient_accumulation_steps"]) * longest
    per_token = 20 * shape["hidden_size"] + 3 * shape["num_attention_heads"] * longest
    copies = 5 if cell.config["method"] == "full_ft" else 1
    return PROCESS_BYTES + copies * weights + 4 * tokens * shape["num_hidden_layers"] * per_token


def available_bytes() -> float:
    """Return the memory that is free, of the machine or of the container's limit."""
    free: float = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        details = (CGROUP / "memory.stat").read_text().split()
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    cached = int(details[details.index("inactive_file") + 1])  # given back when it is needed
    return min(free, limit - used + cached)


def _train(job: Job, store: RunStore, checkpoint_seconds: float) -> dict[str, Any]:
    """Train a run, unless another command has just done so, and take it from the store."""
    from peft_study.training.loop import train_run
    from peft_study.training.resume import Checkpoint

    cell, folder = job.cell, store.unfinished(job.fingerprint)
    with store.locked(job.fingerprint):
        result = store.fetch(job.fingerprint, job.directory)
        if result is None:
            shutil.rmtree(job.directory, ignore_errors=True)
            checkpoint = Checkpoint(folder, checkpoint_seconds)
            found = train_run(
                cell.config, job.seed, cell.data, cell.start, job.directory, checkpoint
            )
            result = found._asdict()
            store.keep(job.fingerprint, job.directory, result)
    store.trim()
    return result


def _stored(store: RunStore, job: Job) -> dict[str, Any] | None:
    try:
        with store.locked(job.fingerprint, timeout=0):
            return store.fetch(job.fingerprint, job.directory)
    except Timeout:  # another command trains it
        return None


def _describe(result: dict[str, Any]) -> str:
    return (
        f"{result['metric']} {result['value']:.4f} at step {result['step']} of {result['steps']}, "
        f"{result['seconds']:.0f} s of training"
    )


def _die_with_parent() -> None:
    """End this process when the one that started the pool has ended, killed or not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
