"""Many runs: the same bytes however they are run, interrupted or not, and failures understood."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, make_config, run_files
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.running import jobs as runner
from peft_study.running.jobs import Cell, Job, run_cells
from peft_study.study import RayParams, RunnerParams


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def local(workers: int | str = 2, **values: Any) -> RunnerParams:
    ray = RayParams(num_cpus=1, num_gpus=0, memory_gigabytes=0.5)
    settings = {"backend": "local", "checkpoint_seconds": 60.0, "store_gigabytes": 1.0, "ray": ray}
    return RunnerParams.model_validate(settings | {"workers": workers} | values)


def cell(config: dict[str, Any], data: Path, directory: Path, seeds: list[int]) -> Cell:
    return Cell(config | {"seeds": seeds}, data, None, directory)


def test_results_do_not_depend_on_the_number_of_workers(
    model_path: Path, learnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for workers in (1, 3):
        place = tmp_path / str(workers)
        cells = [
            cell(make_config(method, model_path), learnable, place / method, [1, 2])
            for method in ("lora", "full_ft")
        ]
        run_cells(cells, local(workers, store_gigabytes=0.0))
        found.append(run_files(place))
    assert len(found[0]) == 2 * 2 * 5
    assert found[0] == found[1]
    printed = capsys.readouterr().out
    assert printed.count("lora movie_polarity seed 2: accuracy 0.") == 2
    assert "from the run store" not in printed
    assert f"wrote 4 run(s) to {tmp_path / '3'}/, " in printed


def test_a_run_is_trained_once(
    model_path: Path, learnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sixth seed trains one run; a changed parameter trains all; changed back, none."""
    config = make_config("lora", model_path)

    def trained(config: dict[str, Any], name: str, seeds: list[int]) -> int:
        run_cells([cell(config, learnable, tmp_path / name, seeds)], local())
        return len(seeds) - capsys.readouterr().out.count("from the run store")

    assert trained(config, "first", [1, 2]) == 2
    assert trained(config, "second", [1, 2, 3]) == 1
    assert trained(make_config("lora", model_path, learning_rate=1e-3), "other", [1, 2]) == 2
    assert trained(config, "third", [1, 2, 3]) == 0
    assert run_files(tmp_path / "second") == run_files(tmp_path / "third")
    again = cell(config, learnable, tmp_path / "fourth", [1, 2, 3])
    run_cells([again], local(1, checkpoint_seconds=1.0))
    assert capsys.readouterr().out.count("from the run store") == 3


@pytest.mark.parametrize("damage", ["truncated", "changed", "without manifest"])
def test_a_damaged_entry_is_reported_and_trained_again(
    damage: str,
    model_path: Path,
    learnable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config("lora", model_path)
    run_cells([cell(config, learnable, tmp_path / "first", [1])], local())
    (entry,) = (tmp_path / ".run_store/runs").iterdir()
    victim = entry / ("manifest.json" if damage == "without manifest" else "predictions.parquet")
    content = victim.read_bytes()
    if damage == "without manifest":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(content[:-10])
    else:
        victim.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    capsys.readouterr()
    run_cells([cell(config, learnable, tmp_path / "second", [1])], local())
    printed = capsys.readouterr()
    assert "damaged, so it is trained again" in printed.err
    assert "from the run store" not in printed.out
    assert run_files(tmp_path / "first") == run_files(tmp_path / "second")


def test_the_store_keeps_within_its_size(
    model_path: Path, learnable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("full_ft", model_path)
    limit = 2.5 * 4e6 / 1e9  # a run of this model takes about 4 MB
    run_cells(
        [cell(config, learnable, tmp_path / "runs", [1, 2, 3])], local(1, store_gigabytes=limit)
    )
    entries = list((tmp_path / ".run_store/runs").iterdir())
    kept = sum(f.stat().st_size for entry in entries for f in entry.rglob("*") if f.is_file())
    assert 0 < kept <= limit * 1e9
    assert len(run_files(tmp_path / "runs")) == 3 * 5
    capsys.readouterr()
    run_cells([cell(config, learnable, tmp_path / "again", [3])], local(store_gigabytes=limit))
    assert "from the run store" in capsys.readouterr().out  # the first to go was the oldest


COMMAND = """
import sys
from pathlib import Path
from peft_study.files import read_json
from peft_study.study import RunnerParams
from peft_study.running.jobs import Cell, run_cells

settings = read_json(Path("settings.json"))
cell = Cell(settings["config"], Path(settings["data"]), None, Path(sys.argv[1]))
if __name__ == "__main__":
    run_cells([cell], RunnerParams.model_validate(settings["runner"]))
"""


@pytest.fixture
def start(model_path: Path, learnable: Path, tmp_path: Path) -> Callable[[str], Any]:
    """Return a function that starts a command which trains three runs into a folder."""
    config = make_config("lora", model_path, epochs=60, evaluations_per_epoch=1) | {
        "seeds": [1, 2, 3]
    }
    settings = {
        "config": config,
        "data": str(learnable),
        "runner": local(checkpoint_seconds=0.05).model_dump(),
    }
    write_json(tmp_path / "settings.json", settings)
    (tmp_path / "command.py").write_text(COMMAND)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def start(place: str) -> Any:
        return subprocess.Popen(
            [sys.executable, "command.py", place],
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def checkpoints(store: Path) -> set[Path]:
    return set(store.glob("unfinished/*/checkpoint-*")) | set(store.glob("runs/*"))


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    start: Callable[[str], Any], tmp_path: Path
) -> None:
    """Every second kill falls before the first new checkpoint, the others some time after."""
    assert start("whole").wait() == 0
    whole, store = run_files(tmp_path / "whole"), tmp_path / ".run_store"
    store.rename(tmp_path / "other_store")
    moments = random.Random(0)
    for number in range(6):
        process, before = start("killed"), checkpoints(store)
        if number % 2:
            while process.poll() is None and not checkpoints(store) - before:
                time.sleep(0.01)
            time.sleep(moments.random())
        else:
            time.sleep(3 * moments.random())
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start("killed")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert run_files(tmp_path / "killed") == whole
    assert not list((store / "unfinished").iterdir())


def test_the_processes_end_with_the_command(start: Callable[[str], Any], tmp_path: Path) -> None:
    process = start("killed")
    unfinished = tmp_path / ".run_store/unfinished"
    deadline = time.monotonic() + 60
    while not list(unfinished.glob("*/checkpoint-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()  # the command alone, not its children
    process.communicate()  # ends when the last process that writes to the pipe has ended
    states = {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")} == states


def test_two_commands_share_a_store(start: Callable[[str], Any], tmp_path: Path) -> None:
    processes = [start("one"), start("two")]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert run_files(tmp_path / "one") == run_files(tmp_path / "two")
    assert len(run_files(tmp_path / "one")) == 3 * 5
    assert len(list((tmp_path / ".run_store/runs").iterdir())) == 3


def test_a_mistake_found_in_a_run_reaches_the_user(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = make_config("lora", model_path) | {"model": "no/such/folder"}
    with pytest.raises(StudyError, match="no such folder"):
        run_cells([cell(config, learnable, tmp_path / "runs", [1, 2])], local())


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_named(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_train", _die)
    config = make_config("lora", model_path)
    with pytest.raises(StudyError, match=r"was killed, perhaps for want of memory; lower runner"):
        run_cells([cell(config, learnable, tmp_path / "runs", [1])], local(1))


def test_auto_uses_every_core_that_memory_allows(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = {"splits": {"train": {"token_length_percentiles": {"100": 20.0}}}}
    monkeypatch.setattr(runner, "read_json", lambda _: summary)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    some = cell(make_config("full_ft", model_path), learnable, tmp_path, list(range(25)))
    jobs = [Job(some, seed, "") for seed in some.config["seeds"]]
    per_run = runner.estimated_bytes(some)
    # A core left idle while the last jobs run is worse than cores that are shared.
    cases: list[tuple[float, int, int]] = [(100, 5, 5), (100, 16, 8), (100, 20, 20), (100, 25, 8)]
    cases += [(15.5, 20, 8), (3.5, 20, 3), (3.5, 5, 3), (0.1, 20, 1)]
    for runs_that_fit, number, count in cases:
        free = runs_that_fit * per_run
        monkeypatch.setattr(runner, "available_bytes", lambda free=free: free)
        assert runner.worker_count(jobs[:number], "auto") == count
    assert runner.worker_count(jobs, 30) == len(jobs)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CGROUP", tmp_path)
    everything = runner.available_bytes()
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert runner.available_bytes() == pytest.approx(everything, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    assert runner.available_bytes() == 4300
