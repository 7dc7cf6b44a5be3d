"""Finished runs by fingerprint, so that no run is ever trained twice."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peft_study.files import read_json, sha256, write_json

# Several clones, and experiments that DVC runs elsewhere, may share one.
STORE = Path(os.environ.get("PEFT_STUDY_STORE", ".run_store"))
MANIFEST = "manifest.json"
PACKAGE = Path(__file__).parents[1]
# What a run's result depends on besides its configuration and data: the sources that the stages
# `train` of dvc.yaml depend on.
SOURCES = (
    "encoders/architectures.py",
    "encoders/backbone.py",
    "methods/__init__.py",
    "methods/saved.py",
    "methods/{method}.py",
    "data/metrics.py",
    "training/batches.py",
    "training/resume.py",
    "training/dropout.py",
    "training/loop.py",
    "training/packing.py",
)


def fingerprint(config: dict[str, Any], seed: int, data: Path, start: Path | None) -> str:
    """Return a hash of all that a run's result depends on, but the kind of processor.

    Args:
        config: as for `peft_study.training.loop.train_run`; its list of seeds does not count.
        seed: the run's.
        data: the prepared data; the contents of its files count, not their place.
        start: likewise; one without weights is as none.
    """
    sources = {name.format(**config): PACKAGE / name.format(**config) for name in SOURCES}
    parts = {
        "config": {key: value for key, value in config.items() if key != "seeds"},
        "seed": seed,
        "data": _digests(data),
        "start": _digests(start, without="start.json") if start else {},
        "sources": {name: sha256(path) for name, path in sources.items()},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class RunStore:
    """A folder of finished runs, and of the checkpoints of unfinished ones.

    Several commands may use it at once: a lock for each run makes the second wait for the first.

    Args:
        root: the folder, made when it is first used.
        gigabytes: what `trim` leaves in it, apart from what is in use.
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

    def fetch(self, fingerprint: str, directory: Path) -> dict[str, Any] | None:
        """Copy a finished run to `directory` and return what was kept with it; None if not stored.

        A run whose files do not have the hashes that were stored with it is reported and removed.
        The caller holds the run's lock.
        """
        entry = self.root / "runs" / fingerprint
        if not entry.is_dir():
            return None
        try:
            manifest = read_json(entry / MANIFEST)
            files, result = manifest["files"], dict(manifest["result"])
            sound = _digests(entry, without=MANIFEST) == files
        except (OSError, ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            print(f"warning: {entry}: damaged, so it is trained again", file=sys.stderr)
            shutil.rmtree(entry)
            return None
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(entry, directory, ignore=shutil.ignore_patterns(MANIFEST))
        os.utime(entry)
        return result

    def keep(self, fingerprint: str, directory: Path, result: dict[str, Any]) -> None:
        """Store the files of a finished run with `result`, whole or not at all.

        The caller holds the run's lock.
        """
        entry = self.root / "runs" / fingerprint
        temporary = entry.with_name(f".{fingerprint}")
        for leftover in (temporary, entry):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(directory, temporary)
        write_json(temporary / MANIFEST, {"files": _digests(directory), "result": result})
        temporary.rename(entry)
        shutil.rmtree(self.unfinished(fingerprint), ignore_errors=True)

    def trim(self) -> None:
        """Remove what was longest unused, except what is in use, until the rest is small enough."""
        entries = [*self.root.glob("runs/*"), *self.root.glob("unfinished/*")]
        sizes = {entry: _size(entry) for entry in sorted(entries, key=_last_used)}
        total = sum(sizes.values())
        for entry, size in sizes.items():
            if total <= self.limit:
                return
            try:
                with self.locked(entry.name.lstrip("."), timeout=0):
                    shutil.rmtree(entry, ignore_errors=True)
                total -= size
            except Timeout:
                pass  # in use


def _digests(directory: Path, without: str = "") -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in files}
    return {name: sha256(path) for name, path in names.items() if name != without}


# Other commands may remove or rename an entry while this one looks at it.
def _size(directory: Path) -> int:
    try:
        return sum(path.stat().st_size for path in directory.rglob("*"))
    except FileNotFoundError:
        return 0


def _last_used(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except FileNotFoundError:
        return 0
