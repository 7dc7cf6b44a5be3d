"""Many runs on a Ray cluster: a task each, with no need of a shared file system."""

import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from peft_study.errors import StudyError, first_line, system_says
from peft_study.run_config import RunConfig, RunResult
from peft_study.running.jobs import Job, tell
from peft_study.running.store import PACKAGE, RunStore
from peft_study.study import RunnerParams
from peft_study.training.environment import kept_variables, short_temporary_folder

SOCKET = 70  # bytes of the name of a socket of Ray, with its folders
# How often a run starts anew because its process or its node was lost.
RETRIES = 5

Folder = dict[str, bytes]


def train(
    jobs: list[Job], runner: RunnerParams, store: RunStore
) -> Iterator[tuple[Job, RunResult]]:
    """Train `jobs` on the cluster at `runner.ray.address`, yielding each with its result.

    Prepared data and starts travel to the nodes through the object store, and a run's files come
    back the same way, into this machine's run store. Nodes need the packages of requirements.lock
    and the pretrained model, by its name; this package's own code is sent to them. Two such
    commands at once may train a run twice, to no harm.

    Raises StudyError: the cluster cannot be reached; or, after all other runs are done, it gave
    runs up, or runs failed for a reason that the user can mend.
    """
    wanted = runner.ray
    problems: list[str] = []
    check_reachable(wanted.address)
    sent_along: dict[str, object] = {"py_modules": [str(PACKAGE)]}
    if wanted.address is None and (python := shlex.quote(sys.executable)) != sys.executable:
        sent_along["py_executable"] = python  # Ray gives it to a shell as it is
    try:
        with short_temporary_folder(SOCKET):
            ray.init(
                address=wanted.address or "local",  # None would join any cluster that it finds
                runtime_env=sent_along,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, ValueError, RayError, RuntimeError) as error:
        raise StudyError(f"runner.ray.address is '{wanted.address}': {first_line(error)}") from None
    try:
        memory = int(wanted.memory_gigabytes * 1e9)
        needs = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, "memory": memory}
        nodes = [node["Resources"] for node in ray.nodes()]
        if not any(all(node.get(k, 0) >= need for k, need in needs.items()) for node in nodes):
            print(f"warning: no node of the cluster has {needs} now; waiting", file=sys.stderr)
        remote = ray.remote(_train).options(
            num_cpus=wanted.num_cpus, num_gpus=wanted.num_gpus, memory=memory, max_retries=RETRIES
        )
        folders = {folder for job in jobs for folder in (job.data, job.cell.start) if folder}
        sent = {folder: ray.put(_read(folder)) for folder in folders}
        futures = {}
        for job in jobs:
            data, start = sent[job.data], sent[job.cell.start] if job.cell.start else None
            futures[remote.remote(job.cell.config.run, job.seed, data, start)] = job
        while futures:
            (done,), _ = ray.wait(list(futures), num_returns=1)
            job = futures.pop(done)
            try:
                result, files = ray.get(done)
            except RayTaskError as error:
                if isinstance(error.cause, StudyError):
                    problems.append(str(error.cause))
                elif said := system_says(error.cause):
                    problems.append(f"{job}: {said}; mend it and run the same command again")
                else:
                    raise
                continue
            except RayError as error:
                problems.append(f"Ray gave up a run: {first_line(error)}")
                continue
            with store.locked(job.fingerprint):
                shutil.rmtree(job.directory, ignore_errors=True)
                _write(files, job.directory)
                store.keep(job.fingerprint, job.directory, result)
            store.trim()
            yield job, result
    finally:
        ray.shutdown()
    tell(problems)


def check_reachable(address: str | None) -> None:
    """Raise a StudyError if nothing listens at host and port; Ray itself would try for minutes."""
    if address in (None, "auto"):
        return
    host, _, port = str(address).removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise StudyError(f"runner.ray.address is '{address}': {first_line(error)}") from None


def _train(
    config: RunConfig, seed: int, data: Folder, start: Folder | None
) -> tuple[RunResult, Folder]:
    """Train a run in a folder of its node; return its result and its files."""
    with kept_variables(), tempfile.TemporaryDirectory() as scratch:
        from peft_study.training.loop import train_run  # libraries read variables when imported

        folders = {name: Path(scratch, name) for name in ("data", "start", "run")}
        _write(data, folders["data"])
        _write(start or {}, folders["start"])
        found = train_run(config, seed, folders["data"], folders["start"], folders["run"])
        return found, _read(folders["run"])


def _read(folder: Path) -> Folder:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _write(files: Folder, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
