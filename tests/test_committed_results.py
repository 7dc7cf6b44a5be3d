"""What the repository says it found: the default study's committed results hold its claims.

They are looked at in a clone, where no experiment of the user has left anything.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT
from peft_study.configure import write_configs
from peft_study.findings.results import load_cells, read_record
from peft_study.records.scores import CellStatistics, Statistics
from peft_study.records.study import StudyInfo
from peft_study.study import load_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of the checkout, with what it has committed and nothing else."""
    folder = tmp_path_factory.mktemp("committed") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def study(clone: Path) -> StudyInfo:
    """Return what findings say of the committed study."""
    write_configs(load_study(clone / "params.yaml"), clone / "configs")
    return read_record(clone / "configs/report.json", StudyInfo)


def reported(clone: Path, study: StudyInfo) -> dict[tuple[str, str, str], CellStatistics]:
    """Return the statistics of the reported evaluations by method, task and metric."""
    cells = read_record(clone / "metrics/statistics.json", Statistics).cells
    return {(c.method, c.task, c.metric): c for c in cells if c.evaluation == study.report}


def test_the_committed_study_is_the_default_one(clone: Path) -> None:
    default = (clone / "studies/opinions.yaml").read_text(encoding="utf-8")
    assert (clone / "params.yaml").read_text(encoding="utf-8") == default


def test_every_method_beats_the_best_constant(clone: Path, study: StudyInfo) -> None:
    cells, gaps = load_cells(study, clone / "metrics")
    assert gaps == []
    statistics = reported(clone, study)
    for (method, task), cell in cells.items():
        found = statistics[method, task, metric := study.main_metrics[task]]
        assert found.n == len(study.seeds)
        assert found.std is not None
        assert found.median - 3 * found.std > cell.baseline[metric], (method, task)


def test_ours_and_pefts_runs_agree(clone: Path, study: StudyInfo) -> None:
    """They start from the same A and see the same rows: their scores agree as numbers do."""
    statistics = reported(clone, study)
    theirs = {key: cell.median for key, cell in statistics.items() if key[0] == "peft_lora"}
    assert theirs
    for (_, *cell), median in theirs.items():
        ours = statistics["lora", cell[0], cell[1]].median
        assert median == pytest.approx(ours, abs=1e-4)


def test_the_page_has_one_kind_of_minus_sign(clone: Path) -> None:
    page = (clone / "plots/report.html").read_text(encoding="utf-8")
    words = re.sub(r"<(script|style|pre).*?</\1>|<[^>]*>", " ", page, flags=re.S)
    assert "\N{MINUS SIGN}" in words
    assert re.findall(r"[\s(]-[\d.]+", words) == []


def test_committed_results_belong_to_the_committed_code(clone: Path, study: StudyInfo) -> None:
    """dvc.lock names code, parameters and results as they are; a fresh clone only lacks data."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    printed = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout
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


def test_the_lock_is_of_one_piece(clone: Path, study: StudyInfo) -> None:
    """Every stage was run on what the stages before it wrote last."""
    lock = YAML(typ="safe", pure=True).load((clone / "dvc.lock").read_text())
    written = {o["path"]: o["md5"] for s in lock["stages"].values() for o in s.get("outs", [])}
    read = [(d["path"], d["md5"]) for s in lock["stages"].values() for d in s.get("deps", [])]
    compared = [(path, md5) for path, md5 in read if path in written]
    assert len(compared) > 30
    assert [path for path, md5 in compared if written[path] != md5] == []
    assert {f"train@{method}" for method in study.labels} <= set(lock["stages"])
    assert len(lock["stages"]) <= 14 + 2 * len(study.methods)
