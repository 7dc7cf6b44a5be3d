"""What the repository says it found: the default study's committed results hold its claims."""

import json
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from conftest import ROOT
from peft_study.files import read_json
from peft_study.study import load_study

STUDY = load_study(ROOT / "params.yaml")
CELLS = [(method, task) for method in STUDY.methods for task in STUDY.tasks]


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    found: dict[str, Any] = read_json(ROOT / "metrics/summary.json")
    return found


def test_the_committed_study_is_the_default_one() -> None:
    default = (ROOT / "studies/opinions.yaml").read_text(encoding="utf-8")
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == default


@pytest.mark.parametrize(("method", "task"), CELLS)
def test_every_method_beats_the_best_constant(
    summary: dict[str, Any], method: str, task: str
) -> None:
    metric = STUDY.task_definition(task, STUDY.tasks[task]).metrics[0]
    found = summary[task][method][metric]
    assert found["n"] == len(STUDY.seeds)
    assert found["median"] - 3 * found["std"] > summary[task]["baseline"][metric]


def test_ours_and_pefts_runs_agree(summary: dict[str, Any]) -> None:
    """They start from the same A and see the same rows: their scores agree as numbers do."""
    for task in STUDY.tasks:
        for metric in STUDY.task_definition(task, STUDY.tasks[task]).metrics:
            ours, theirs = (summary[task][m][metric] for m in ("lora", "peft_lora"))
            assert ours["median"] == pytest.approx(theirs["median"], abs=1e-4)


def test_committed_results_belong_to_the_committed_code() -> None:
    """dvc.lock names code, parameters and results as they are; a fresh clone only lacks data."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    stale = []
    for stage, entries in json.loads(printed).items():
        for entry in entries:
            if (stage, entry) == ("configure", "always changed"):
                continue
            changes = entry if isinstance(entry, dict) else {entry: {}}
            for kind, paths in changes.items():
                # What a fresh clone lacks is reported as deleted, and as not in the cache.
                present = {
                    p: how for p, how in paths.items() if how not in ("deleted", "not in cache")
                }
                if present or not paths:
                    stale.append((stage, kind, present))
    assert stale == []


def test_the_lock_is_of_one_piece() -> None:
    """Every stage was run on what the stages before it wrote last."""
    lock = YAML(typ="safe", pure=True).load((ROOT / "dvc.lock").read_text())
    written = {o["path"]: o["md5"] for s in lock["stages"].values() for o in s.get("outs", [])}
    read = [(d["path"], d["md5"]) for s in lock["stages"].values() for d in s.get("deps", [])]
    compared = [(path, md5) for path, md5 in read if path in written]
    assert len(compared) > 30
    assert [path for path, md5 in compared if written[path] != md5] == []
    assert {f"train@{method}-{task}" for method, task in CELLS} <= set(lock["stages"])
