"""Finished runs by fingerprint, so that no run is ever trained twice."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from peft_study.files import copy_folder, read_json, sha256, write_json
from peft_study.run_config import RunConfig, RunResult

MANIFEST = "manifest.json"
FINGERPRINT = re.compile("[.]?[0-9a-f]{64}")  # the name of an entry, and of one that is being made
PACKAGE = Path(__file__).parents[1]
# Their rows count as a run's configuration has resolved them: another row or label changes no run.
TABLES = {"peft_study.data.tasks", "peft_study.encoders.architectures", "peft_study.methods"}


def store_folder() -> Path:
    """Return where finished runs are kept: `PEFT_STUDY_STORE`, or a folder inside DVC's cache.

    Experiments that DVC runs in folders of their own, and clones that share its cache, find the
    same one there. Outside of a DVC repository it is `.run_store` in the current folder.
    """
    if named := os.environ.get("PEFT_STUDY_STORE"):
        return Path(named)
    cache = dvc_cache()
    return cache / "peft_study" if cache else Path(".run_store")


def dvc_cache() -> Path | None:
    """Return the folder of DVC's cache; None outside of a DVC repository."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(asked.stdout.strip()) if asked.returncode == 0 else None


def modules_of(module: str) -> set[str]:
    """Return the modules of this project that a run imports whose method is in `module`."""
    found: set[str] = set()
    waiting = ["peft_study.training.loop", f"peft_study.methods.{module}"]
    while waiting:
        name = waiting.pop()
        if name not in found and _source(name) is not None:
            found.add(name)
            waiting += [*_imports(name), name.rpartition(".")[0]]
    return found


def fingerprint(config: RunConfig, seed: int, data: Path, start: Path | None) -> str:
    """Return a hash of all that a run's result depends on, but the kind of processor.

    Of `data` and `start` the contents of files count, not their place; a start without weights is
    as none. What a study calls a method changes nothing.
    """
    parts = {
        "config": {key: value for key, value in asdict(config).items() if key != "method"},
        "seed": seed,
        "data": _digests(data),
        "start": _digests(start, without="start.json") if start else {},
        "sources": _sources(config.module),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class RunStore:
    """A folder of finished runs, and of the checkpoints of unfinished ones.

    A run's folder holds a manifest with its fingerprint, its result and the hashes of its files, in
    the store and wherever it is copied to. Several commands may use a store at once: a lock for
    each run makes the second wait for the first. `trim` leaves `gigabytes`, and what is in use.
    """

    def __init__(self, root: Path, gigabytes: float) -> None:
        self.root, self.limit = root, gigabytes * 1e9

    def unfinished(self, fingerprint: str) -> Path:
        """Return the folder for the checkpoint of a run."""
        return self.root / "unfinished" / fingerprint

    @contextmanager
    def locked(self, fingerprint: str, timeout: float = -1) -> Iterator[None]:
        """Hold the lock of a run; `filelock.Timeout` after `timeout` seconds, unless negative."""
        path = self.root / "locks" / fingerprint
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=timeout):
            yield

    def fetch(self, fingerprint: str, directory: Path) -> RunResult | None:
        """Copy a finished run to `directory` and return its result; None if it is not stored.

        One whose files do not have the stored hashes is reported and removed. The caller holds the
        run's lock.
        """
        entry = self.root / "runs" / fingerprint
        if not (found := read_run(entry)):
            if entry.is_dir():
                print(f"warning: {entry}: damaged, so it is trained again", file=sys.stderr)
                shutil.rmtree(entry)
            return None
        shutil.rmtree(directory, ignore_errors=True)
        copy_folder(entry, directory)
        os.utime(entry)
        return found[1]

    def keep(self, fingerprint: str, directory: Path, result: RunResult) -> None:
        """Store the files of a finished run, whole or not at all; the caller holds its lock."""
        manifest = {"fingerprint": fingerprint, "files": _digests(directory), "result": result}
        write_json(directory / MANIFEST, manifest)
        self._copy(fingerprint, directory)
        shutil.rmtree(self.unfinished(fingerprint), ignore_errors=True)

    def adopt(self, directory: Path) -> int:
        """Take the sound runs below `directory` that are not stored; return how many they were.

        A clone that pulled its runs would lose them: DVC deletes what a stage wrote to rerun it.
        """
        adopted = 0
        for manifest in sorted(directory.rglob(MANIFEST)):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if (self.root / "runs" / read_json(manifest)["fingerprint"]).is_dir():
                    continue
            if found := read_run(manifest.parent):
                with self.locked(found[0]):
                    self._copy(found[0], manifest.parent)
                adopted += 1
        return adopted

    def trim(self) -> None:
        """Remove what was longest unused, except what is in use, until the rest is small enough.

        What lies there and is no run's stays: the user may have named a folder of other things.
        """
        entries = [*self.root.glob("runs/*"), *self.root.glob("unfinished/*")]
        own = (entry for entry in entries if FINGERPRINT.fullmatch(entry.name))
        found = sorted((*_use_and_size(entry), entry) for entry in own)
        total = sum(size for _, size, _ in found)
        for _, size, entry in found:
            if total <= self.limit:
                return
            with suppress(Timeout), self.locked(entry.name.lstrip("."), timeout=0):
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _copy(self, fingerprint: str, directory: Path) -> None:
        entry = self.root / "runs" / fingerprint
        temporary = entry.with_name(f".{fingerprint}")
        for leftover in (temporary, entry):
            shutil.rmtree(leftover, ignore_errors=True)
        copy_folder(directory, temporary)
        temporary.rename(entry)


def read_run(directory: Path) -> tuple[str, RunResult] | None:
    """Return the fingerprint and the result of a finished run; None unless its files are sound."""
    try:
        manifest = read_json(directory / MANIFEST)
        found = str(manifest["fingerprint"]), RunResult(**manifest["result"])
        sound = _digests(directory, without=MANIFEST) == manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if sound else None


@cache
def _sources(module: str) -> dict[str, str]:
    names = modules_of(module) - TABLES
    return {name: sha256(path) for name in sorted(names) if (path := _source(name))}


def _source(name: str) -> Path | None:
    """Return the file of a module of this project; None for names that are no modules."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if name.split(".")[0] == PACKAGE.name and found.is_file() else None


def _imports(name: str) -> list[str]:
    """Return what a module imports, and names that it imports from there: these may be modules."""
    path, found = _source(name), []
    tree = ast.parse(path.read_text(encoding="utf-8") if path else "")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def _digests(directory: Path, without: str = "") -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in files}
    return {name: sha256(path) for name, path in names.items() if name != without}


def _use_and_size(directory: Path) -> tuple[float, int]:
    """Return when a run was last used, and its bytes; zeros if another command takes it away."""
    try:
        size = sum(path.stat().st_size for path in directory.rglob("*"))
        return directory.stat().st_mtime, size
    except FileNotFoundError:
        return 0, 0
