"""What the system refuses is told in one line, and files have the mode that a user asks for."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from conftest import full_disk, make_config
from peft_study.errors import StudyError, run_command, system_says
from peft_study.files import as_json, copy_folder, replacing, write_json
from peft_study.run_config import RunResult
from peft_study.running.store import RunStore
from peft_study.training.loop import train_run
from peft_study.training.resume import Checkpoint

MANY = np.random.default_rng(0).random(5000)
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("a" * 50_000),
    "JSON": lambda path: path.write_text(as_json(MANY.tolist())),
    "CSV": lambda path: pd.DataFrame({"a": MANY}).to_csv(path, index=False),
    "Parquet": lambda path: pd.DataFrame({"a": MANY}).to_parquet(path, index=False),
    "tensors": lambda path: save_file({"a": torch.zeros(5000)}, path),
    "arrays": lambda path: save_arrays({"a": MANY}, path),
}


def said(body: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line that fails, and return the one line that it prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_command(body)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_told_with_the_file(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folder/file"

    def command() -> None:
        with replacing(path) as temporary, full_disk():
            WRITERS[what](temporary)

    assert said(command, capsys) == f"error: {path}: File too large"
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_copied_whole_is_told_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/a").write_text("a" * 5000)

    def command() -> None:
        with full_disk():
            copy_folder(tmp_path / "from", tmp_path / "to")

    def libraries() -> None:
        with full_disk():
            shutil.copytree(tmp_path / "from", tmp_path / "there")

    assert said(command, capsys) == f"error: {tmp_path}/to/a: File too large"
    assert said(libraries, capsys) == f"error: {tmp_path}/there/a: File too large"


@pytest.mark.parametrize("place", ["file/config.json", "file/below/config.json", "n" * 300])
def test_a_place_where_nothing_can_be_written(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    line = said(lambda: write_json(tmp_path / place, {}), capsys)
    assert line.startswith(f"error: {tmp_path}/")
    assert line.endswith(("Not a directory", "File exists", "File name too long"))


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="this system has no such folder")
def test_a_folder_of_the_systems(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even the superuser may write there."""
    line = said(lambda: write_json(Path("/sys/a.json"), {}), capsys)
    assert line in (f"error: /sys/a.json: {os.strerror(e)}" for e in (errno.EACCES, errno.EPERM))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a", None, "b"), "b: Disk quota exceeded"),
        (OSError("a library's own words\nand more"), "a library's own words"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("\nCUDA out of memory. Tried"),
            "not enough memory: CUDA out of memory. Tried",
        ),
        (ValueError("no file's"), None),
        (StudyError("a mistake"), None),
    ],
)
def test_what_the_system_says(error: Exception, expected: str | None) -> None:
    assert system_says(error) == expected


def test_memory_that_is_not_there_and_faults_of_ones_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = said(lambda: print(torch.empty(10**15).sum()), capsys)
    assert line.startswith("error: not enough memory: ")
    with pytest.raises(ZeroDivisionError):  # a fault of the program has its traceback
        run_command(lambda: print(1 // 0))


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_files_have_the_mode_that_the_umask_says(
    mask: int, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """A run's, its checkpoint's, and those that go through the run store under another mask."""
    store, config = RunStore(tmp_path / "store", 1), make_config("lora", model_path, epochs=1)
    old = os.umask(mask)
    try:
        for name, write in WRITERS.items():
            with replacing(tmp_path / "written" / name) as temporary:
                write(temporary)
        checkpoint = Checkpoint(tmp_path / "checkpoint", 0)
        train_run(config, 1, learnable, None, tmp_path / "run", checkpoint)
        store.keep("ab" * 32, tmp_path / "run", RunResult("accuracy", 1.0, 1, 1, 0.5))
        with store.locked("ab" * 32):
            pass
        assert modes(tmp_path) == {0o666 & ~mask}
        os.umask(0o007)
        assert store.fetch("ab" * 32, tmp_path / "fetched")
        assert modes(tmp_path / "fetched") == {0o660}
    finally:
        os.umask(old)
