"""What every held-out row adds to a cell's scores: tables in `metrics/rows/`, kept by git.

So findings, and comparisons of two versions of a study, need no predictions, which DVC keeps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from peft_study.errors import StudyError
from peft_study.files import replacing
from peft_study.findings.chance import Values
from peft_study.records.scores import Cell

ANEW = "run 'dvc repro' to write it anew"
CellValues = dict[str, Values]  # by metric


def write_rows(path: Path, ids: Sequence[str], values: Mapping[tuple[str, str], Values]) -> None:
    """Write the values of each row, of shape (rows,), by metric and seed, as single floats."""
    columns = {_column(*of): pa.array(found.astype(np.float32)) for of, found in values.items()}
    with replacing(path) as temporary:
        pq.write_table(pa.table({"id": ids} | columns), temporary, compression="zstd")


def read_rows(path: Path, cell: Cell) -> CellValues:
    """Return a cell's values, of shape (seeds, rows), by metric; each seed's mean is its score.

    Raises StudyError if the file is missing or of other runs.
    """
    try:
        table = pq.read_table(path)
        return {metric: _values(table, cell, metric) for metric in cell.metrics}
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise StudyError(f"{path}: does not hold the rows of its cell ({error}); {ANEW}") from None


def read_ids(path: Path) -> list[str]:
    """Return the ids of the rows, in the order of their values.

    Raises StudyError if the file is missing or holds none.
    """
    try:
        found: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise StudyError(f"{path}: holds no ids ({error}); {ANEW}") from None
    return found


def read_seeds(path: Path, metric: str, seeds: Sequence[str]) -> pd.DataFrame | None:
    """Return a metric's values by row id and seed; None where the file lacks them."""
    if not path.is_file():
        return None
    table = pq.read_table(path)
    columns = {seed: _column(metric, seed) for seed in seeds}
    if not set(columns.values()) <= set(table.column_names):
        return None
    found = {seed: table[name].to_numpy().astype(np.float64) for seed, name in columns.items()}
    return pd.DataFrame(found, index=table["id"].to_pylist())


def _values(table: pa.Table, cell: Cell, metric: str) -> Values:
    scores = cell.scores(metric, cell.judged)
    of_rows = np.stack([table[_column(metric, seed)].to_numpy() for seed in scores])
    found = of_rows.astype(np.float64)
    # Single floats: the mean is the score again, to the last digit.
    centre = np.nanmean(found, axis=1) - np.array(list(scores.values()))
    return found - centre[:, None]


def _column(metric: str, seed: str) -> str:
    return f"{metric} of seed {seed}"
