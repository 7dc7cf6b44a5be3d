"""The results that README.md shows."""

import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from peft_study.configure import write_configs
from peft_study.errors import StudyError
from peft_study.findings import readme
from peft_study.study import load_study

pytestmark = pytest.mark.slow


def test_the_readme_shows_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_configs(load_study(ROOT / "params.yaml"), tmp_path / "configs")
    for name in ("metrics", "plots"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("README.md", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    readme.main()
    written = Path("README.md").read_text(encoding="utf-8")
    assert written == (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](plots/svg/scores.svg)" in written
    with pytest.raises(StudyError, match="markers"):
        readme.with_results("no markers", "results")
