"""Did the study change by more than chance? `make compare REV=main` compares it with a version.

Its results are compared cell by cell, as they lie here, with those that git has of a commit, a
branch or an experiment of DVC: paired by seed and held-out row where both have rows, else by seed.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from peft_study.errors import StudyError, run_command
from peft_study.files import read_json
from peft_study.findings.chance import Values
from peft_study.findings.comparisons import holm, tested
from peft_study.findings.results import METRICS, load_study_info
from peft_study.findings.rows import read_seeds
from peft_study.findings.wording import interval, percent, points
from peft_study.records import Record
from peft_study.records.scores import Paired

ENOUGH = 0.5  # the share of the rows that two versions must have in common to be paired by them


class Compared(Record):
    """A cell of both versions: the mean score before and now, and how it was paired."""

    name: str
    before: float
    now: float
    found: Paired
    rows: str


def compare(
    now: Path, before: Path, cells: Sequence[tuple[str, str, str]], margin: float
) -> Iterator[Compared | str]:
    """Yield the cells (method, task, metric) of two folders; those of one only as a sentence.

    `margin` is the difference that would not matter, as a fraction of the metric.
    """
    known = [(method, task) for method, task, _ in cells]
    for file in sorted(before.glob("runs/*/*.json")):
        if (file.parent.name, file.stem) not in known:
            yield f"{file.stem}: {file.parent.name} has results in one of the versions only"
    for method, task, metric in cells:
        name, where = f"{task}: {method}", Path("runs", method, f"{task}.json")
        there = [(folder / where).is_file() for folder in (before, now)]
        if not all(there):
            if any(there):
                yield f"{name} has results in one of the versions only"
            continue
        old, new = (read_json(folder / where) for folder in (before, now))
        if old.get("failed") or new.get("failed"):
            yield f"{name} has runs without results in one of the versions"
            continue
        at = new["report"] if new["report"] == old["report"] else "last"
        runs = [run for of in (old, new) for run in of["seeds"].values()]
        fitted = at == "best" and all(run.get("cross_fitted") for run in runs)
        scores = [
            {
                seed: run["cross_fitted"]["scores"][metric] if fitted else run[at][metric]
                for seed, run in of["seeds"].items()
            }
            for of in (old, new)
        ]
        seeds = [seed for seed in scores[1] if seed in scores[0]]
        if not seeds:
            yield f"{name} has no seed that both versions have"
            continue
        # Rows are of the scores that chose nothing: cross-fitted, or the last.
        has_rows = fitted or {old["report"], new["report"]} == {"last"}
        tables = [
            read_seeds(folder / "rows" / method / f"{task}.parquet", metric, seeds)
            for folder in (before, now)
            if has_rows
        ]
        old_values, new_values, rows = _paired(tables, scores, seeds)
        rows += "" if fitted else f", {at}"
        found = tested(new_values - old_values, margin)
        yield Compared(name, float(old_values.mean()), float(new_values.mean()), found, rows)


def _paired(
    tables: list[pd.DataFrame | None], scores: list[dict[str, float]], seeds: list[str]
) -> tuple[Values, Values, str]:
    """Return the values before and now, of shape (seeds, rows), and how many rows these are.

    Rows are those that both versions have; without enough of them the shape is (seeds, 1).
    """
    before, now = tables or (None, None)
    if before is not None and now is not None:
        both = now.index.intersection(before.index)
        if len(both) >= ENOUGH * max(len(now), len(before)):
            return before.loc[both].to_numpy().T, now.loc[both].to_numpy().T, f"{len(both):,}"
    old, new = (np.array([[of[seed]] for seed in seeds]) for of in scores)
    return old, new, "seeds only"


def metrics_of(revision: str, folder: Path) -> Path:
    """Write what git has of the metrics of a revision, or of an experiment, to `folder`.

    Raises StudyError if there is no such revision, or if it has no results.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError, resolve_rev

    try:
        commit = resolve_rev(Repo().scm, revision)
    except (DvcException, SCMError) as error:
        raise StudyError(
            f"REV: got '{revision}', which is no commit, branch or experiment ({error}); see "
            "'git log', 'git branch' and 'make experiments'"
        ) from None
    command = ["git", "archive", "--format=tar", commit, str(METRICS)]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode != 0:
        raise StudyError(f"REV: got '{revision}', of which git has no {METRICS}/; name another one")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # before Python 3.11.4; the archive is this repository's own
            archive.extractall(folder)
    return folder / METRICS


def lines(found: list[Compared]) -> Iterator[str]:
    """Yield the table of what was compared, the tests corrected for their number."""
    tests = [1.0 if row.found.p is None else row.found.p for row in found]
    head = f"{'before':>7}{'now':>7}{'change':>8}  {'95% interval':<16}{'n':>3} {'rows':<17}"
    yield f"{'cell':<34}{head}"
    for row, p in zip(found, holm(tests), strict=True):
        change = row.found.mean or 0.0
        word = "no more than chance"
        if row.found.low == row.found.high == 0:
            word = "unchanged"
        elif row.found.low is None:
            word = "no interval: one seed"
        elif p < 0.05 or (row.found.p is None and change):
            word = "more" if change > 0 else "less"
        ends = interval(row.found.low, row.found.high, points)
        shown = f"{percent(row.before):>7}{percent(row.now):>7}{points(change):>8}  {ends:<16}"
        yield f"{row.name:<34}{shown}{row.found.n:>3} {row.rows:<17}{word}"
    yield (
        f"compare: scores times 100; {len(found)} tests at 5%, corrected (Holm); each interval for "
        "itself, over seeds and held-out rows"
    )


def main() -> None:
    revision = sys.argv[1] if len(sys.argv) > 1 else ""
    if not revision:
        raise StudyError(
            "REV: is missing; name a commit, branch or experiment: make compare REV=main"
        )
    if not Path("configs/report.json").is_file():
        raise StudyError("configs/: is not here yet; run 'dvc repro configure'")
    study = load_study_info()
    cells = [
        (method, task, metric)
        for method, (task, metric) in product(study.labels, study.main_metrics.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        before = metrics_of(revision, Path(folder))
        found = list(compare(METRICS, before, cells, study.equivalence_margin))
    told = [row for row in found if isinstance(row, Compared)]
    if not told:
        raise StudyError(
            f"REV: got '{revision}', which has no cell of this study; name another one"
        )
    print("\n".join(lines(told)))
    for text in (row for row in found if isinstance(row, str)):
        print(f"compare: {text}")


if __name__ == "__main__":
    run_command(main)
