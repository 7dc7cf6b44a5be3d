"""What the benchmarks share: a cell of the study in the current folder, and a folder to run it in.

`dvc repro prepare` writes the configuration and the rows that they take.
"""

import argparse
import os
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

from peft_study.errors import StudyError
from peft_study.files import read_record, write_json
from peft_study.run_config import CellConfig

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class PeerRun:
    """What `trainer_peft.py` found; `chosen` is the evaluation that the study would report."""

    threads: int
    steps: int
    seconds_per_step: float
    chosen: dict[str, float]
    evaluations: list[dict[str, float]]


def options(about: str | None) -> argparse.ArgumentParser:
    """Return a parser for a script that `about` documents, with the task among its options."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--task", default="movie_polarity", help="a task of the study")
    return parser


def read_cell(method: str, task: str) -> CellConfig:
    """Return a cell of the study.

    Raises:
        StudyError: it has none of this method and task.
    """
    try:
        return read_record(Path(f"configs/train/{method}.json"), dict[str, CellConfig])[task]
    except (FileNotFoundError, KeyError):
        raise StudyError(f"configs/train/ has no cell of '{method}' on '{task}'") from None


def lay_out(cell: CellConfig, folder: Path) -> None:
    """Copy into an empty `folder` what a stage needs to train `cell`."""
    shutil.copy(ROOT / "params.yaml", folder)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name)
    method, task = cell.run.method, cell.run.task
    write_json(folder / f"configs/train/{method}.json", {task: cell})
    data, start = Path("data/prepared", task), Path("init", method, "start")
    shutil.copytree(data, folder / data)
    if cell.starts:
        shutil.copytree(start, folder / start)
    else:
        write_json(folder / start / "start.json", {"intermediate": False, "failure": None})


def environment(folder: Path, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a script in `folder`, whose runs no other run store may hold."""
    kept = {name: value for name, value in os.environ.items() if name not in THREADS}
    if threads:
        kept |= dict.fromkeys(THREADS, str(threads))
    own = {"PYTHONPATH": str(folder / "src"), "PEFT_STUDY_STORE": str(folder / ".run_store")}
    return kept | own | {"HF_HUB_OFFLINE": "1"}


def spread(values: list[float], form: str) -> str:
    """Format the median and the range."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({least:{form}}–{most:{form}})"
