"""Many runs: the same bytes however many at once, and failures that are understood."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from conftest import make_config
from peft_study.errors import StudyError
from peft_study.training import runner


def outcome(directory: Path) -> dict[str, bytes]:
    files = [p for p in directory.rglob("*") if p.is_file() and p.name != "history.csv"]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def test_results_do_not_depend_on_the_number_of_workers(
    model_path: Path,
    learnable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config("lora", model_path)
    for workers in (1, 3):
        runner.run_seeds(config, [1, 2, 3], learnable, None, tmp_path / str(workers), workers)
    one, three = outcome(tmp_path / "1"), outcome(tmp_path / "3")
    assert len(one) == 3 * 4
    assert one == three
    printed = capsys.readouterr().out
    assert printed.count("lora movie_polarity seed 2: accuracy 0.") == 2
    assert f"wrote 3 run(s) to {tmp_path / '3'}/" in printed


def test_a_mistake_found_in_a_run_reaches_the_user(
    model_path: Path,
    learnable: Path,
    tmp_path: Path,
) -> None:
    config = make_config("lora", model_path) | {"model": "no/such/folder"}
    with pytest.raises(StudyError, match="no such folder"):
        runner.run_seeds(config, [1, 2], learnable, None, tmp_path, "auto")


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_named(
    model_path: Path,
    learnable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "_train_run", _die)
    with pytest.raises(StudyError, match=r"was killed, perhaps for want of memory; lower runner"):
        runner.run_seeds(make_config("lora", model_path), [1], learnable, None, tmp_path, 1)
