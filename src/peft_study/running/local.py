"""Runs on this machine: single-threaded processes side by side, one for each run."""

import math
import multiprocessing
import os
import shutil
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from tqdm import tqdm

from peft_study.data.draws import rows_of
from peft_study.encoders.pretrained import model_config, model_folder, weight_files
from peft_study.errors import StudyError, system_says
from peft_study.files import read_json
from peft_study.run_config import FullFtSettings, RunResult
from peft_study.running.jobs import Cell, Job, tell
from peft_study.running.store import RunStore
from peft_study.study import RunnerParams
from peft_study.training.environment import kept_variables, short_temporary_folder

PROCESS_BYTES = 6e8  # Python, PyTorch and transformers, imported
SOCKET = 35  # bytes of the name of a forking process's socket, with its folder
FEW = 3  # jobs per core that may share it
CGROUP = Path("/sys/fs/cgroup")
KILLED = (
    "a training process was killed, perhaps for want of memory; lower runner.workers and run the "
    "same command again: it goes on from the last checkpoints"
)


def train(
    jobs: list[Job], runner: RunnerParams, store: RunStore
) -> Iterator[tuple[Job, RunResult]]:
    """Train `jobs` in processes of this machine, yielding each with its result when it is done.

    Where the platform allows, processes are forked from one that has imported everything once, yet
    holds no threads of its own. Pretrained weights are mapped from their file, so that all
    processes share those not trained. Of the environment they have what `environment.KEPT` names.

    Raises StudyError: some runs failed, after all others are done.
    """
    context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        modules = {f"peft_study.methods.{job.cell.config.run.module}" for job in jobs}
        context.set_forkserver_preload(["peft_study.running.preload", *sorted(modules)])
    waiting, at_once = list(jobs), worker_count(jobs, runner.workers)
    problems: list[str] = []
    running: dict[object, tuple[Job, BaseProcess, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                arguments = (job, store, runner.checkpoint_seconds, theirs)
                process: BaseProcess = context.Process(target=_train, args=arguments, daemon=True)
                with short_temporary_folder(SOCKET), kept_variables():
                    process.start()
                theirs.close()
                running[ours] = job, process, ours
            for ready in wait([ours for _, _, ours in running.values()]):
                job, process, ours = running.pop(ready)
                try:
                    found = ours.recv()
                except EOFError:
                    found = KILLED
                ours.close()
                process.join()
                if isinstance(found, RunResult):
                    yield job, found
                else:
                    problems.append(found)
    finally:
        # Their checkpoints stay: the next command goes on from there.
        for _, process, _ in running.values():
            process.terminate()
    tell(problems)


def worker_count(jobs: list[Job], workers: int | str) -> int:
    """Return how many of `jobs` to train at once: as said, or one per core as memory allows.

    A few jobs that do not divide by the cores share them all at once, so that none is idle at the
    end. On a GPU `auto` is one: how many fit on it is for the user to say.
    """
    if workers != "auto":
        return min(len(jobs), int(workers))
    if jobs[0].cell.config.run.train.device != "cpu":
        return 1
    limited = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1
    cells = {job.cell.directory: job.cell for job in jobs}.values()
    fitting = max(1, int(available_bytes() / max(map(estimated_bytes, cells))))
    all_at_once = len(jobs) % cores and len(jobs) <= min(fitting, FEW * cores)
    return len(jobs) if all_at_once else min(len(jobs), cores, fitting)


def estimated_bytes(cell: Cell) -> float:
    """Estimate the peak memory of one of a cell's runs, in bytes, generously.

    Weights, in full fine-tuning also gradients, two moments and the copy of the best weights; and
    per layer and token about 20 activations of the hidden size, and three rows of attention.
    """
    run, hyper = cell.config.run, cell.config.run.train
    encoder = run.encoder.name, run.encoder.revision
    weights = sum(file.stat().st_size for file in weight_files(model_folder(*encoder)))
    shape, folders = model_config(*encoder), {rows_of(cell.data, n) for n in cell.config.seeds}
    found = [split for at in folders for split in read_json(at / "summary.json")["splits"].values()]
    longest = max(split["token_length_percentiles"]["100"] for split in found)
    tokens = math.ceil(hyper.batch_size / hyper.gradient_accumulation_steps) * longest
    per_token = 20 * shape["hidden_size"] + 3 * shape["num_attention_heads"] * longest
    copies = 5 if isinstance(run.settings, FullFtSettings) else 1
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


def _train(job: Job, store: RunStore, checkpoint_seconds: float, answer: Connection) -> None:
    """Train a run, and send its result, or what went wrong in words, to who waits for it."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # By default progress bars share a semaphore, which a killed process would leave behind.
    tqdm.set_lock(threading.RLock())
    try:
        answer.send(_trained(job, store, checkpoint_seconds))
    except StudyError as error:
        answer.send(str(error))
    except Exception as error:
        said = system_says(error)
        mend = f"{said}; mend it and run the same command again"
        answer.send(f"{job}: {mend if said else traceback.format_exc()}")


def _trained(job: Job, store: RunStore, checkpoint_seconds: float) -> RunResult:
    """Train a run, unless another command has just done so: then take it from the store."""
    from peft_study.training.loop import train_run
    from peft_study.training.resume import Checkpoint

    cell, directory = job.cell, job.directory
    with store.locked(job.fingerprint):
        result = store.fetch(job.fingerprint, directory)
        if result is None:
            shutil.rmtree(directory, ignore_errors=True)
            checkpoint = Checkpoint(store.unfinished(job.fingerprint), checkpoint_seconds)
            what = cell.config.run, job.seed, job.data, cell.start
            result = train_run(*what, directory, checkpoint)
            store.keep(job.fingerprint, directory, result)
    store.trim()
    return result


def _die_with_parent() -> None:
    """Wait for the end, killed or not, of the process that started this one, and end this one."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        os._exit(1)
