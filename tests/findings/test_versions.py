"""Two versions of a study compared: more than chance, or not."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import builders
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.findings.rows import write_rows
from peft_study.findings.versions import Compared, compare, lines, metrics_of
from peft_study.records.scores import CrossFitted

CELL = ("lora", "film", "accuracy")


def version(folder: Path, lost: float = 0.0, first_row: int = 0) -> Path:
    """Write the results of three seeds, of 400 rows of which a share `lost` is wrong."""
    rng, scores, values = np.random.default_rng(0), {}, {}
    base = rng.random(400) < 0.8
    for seed in ("1", "2", "3"):
        right = np.where(rng.random(400) < 0.05, ~base, base).astype(float)
        right[np.flatnonzero(right)[: round(400 * lost)]] = 0.0
        scores[seed], values["accuracy", seed] = float(right.mean()), right
    cell = builders.cell("lora", "film", *scores.values())
    fitted = {
        seed: replace(run, cross_fitted=CrossFitted({"accuracy": scores[seed]}, {"accuracy": 0.0}))
        for seed, run in cell.seeds.items()
    }
    write_json(folder / "runs/lora/film.json", replace(cell, seeds=fitted))
    ids = [str(row) for row in range(first_row, first_row + 400)]
    (folder / "rows/lora").mkdir(parents=True)
    write_rows(folder / "rows/lora/film.parquet", ids, values)
    return folder


def compared(now: Path, before: Path) -> tuple[Compared, str]:
    (row,) = compare(now, before, [CELL], 0.02)
    assert isinstance(row, Compared)
    _, line, _ = lines([row])
    return row, line


def test_a_version_equals_itself(tmp_path: Path) -> None:
    row, line = compared(version(tmp_path / "a"), version(tmp_path / "b"))
    assert (row.found.mean, row.found.n, row.rows) == (0.0, 3, "400")
    assert line.endswith("unchanged")


def test_a_loss_of_ten_points_is_more_than_chance(tmp_path: Path) -> None:
    row, line = compared(version(tmp_path / "now", lost=0.1), version(tmp_path / "before"))
    assert row.found.mean == pytest.approx(-0.1)
    assert line.endswith("less")
    _, line = compared(tmp_path / "before", tmp_path / "now")
    assert line.endswith("more")


def test_other_rows_and_older_results_are_paired_by_seed_alone(tmp_path: Path) -> None:
    now = version(tmp_path / "now")
    row, _ = compared(now, version(tmp_path / "other", first_row=300))
    assert row.rows == "seeds only"
    half = version(tmp_path / "half", first_row=150)
    row, _ = compared(now, half)
    assert row.rows == "250"
    assert row.now - row.before == pytest.approx(row.found.mean)  # of the rows of both
    old = version(tmp_path / "old") / "runs/lora/film.json"
    found = read_json(old)
    for run in found["seeds"].values():
        del run["cross_fitted"], run["learned"]
    write_json(old, found)
    assert compared(now, tmp_path / "old")[0].rows == "seeds only, best"


def test_what_one_version_lacks_is_named(tmp_path: Path) -> None:
    version(tmp_path / "now")
    cells = [CELL, ("lora", "rating", "pearson")]
    for now, before, asked in (
        (tmp_path / "now", tmp_path, cells),
        (tmp_path, tmp_path / "now", cells),
        (tmp_path, tmp_path / "now", cells[1:]),
    ):
        found = list(compare(now, before, asked, 0.02))
        assert found == ["film: lora has results in one of the versions only"]


def test_a_revision_is_read_from_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    version(tmp_path / "metrics")
    run("git", "add", "--all")
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "results")
    found = metrics_of("HEAD", tmp_path / "was")
    assert compared(tmp_path / "metrics", found)[1].endswith("unchanged")
    with pytest.raises(StudyError, match="REV: got 'none', which is no commit, branch or exper"):
        metrics_of("none", tmp_path / "other")
