"""Many runs: the same bytes however they are run, interrupted or not, and failures understood."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import NIGHTLY, ROOT, make_config, run_files
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.run_config import CellConfig
from peft_study.running import local as here
from peft_study.running.jobs import Cell, Job, run_cells, train_starts
from peft_study.running.store import RunStore
from peft_study.stage_configs import InitConfig
from peft_study.study import RayParams, RunnerParams

pytestmark = pytest.mark.slow
STORED = "from the run store"
COMMAND = """
import sys
from pathlib import Path
from peft_study.files import read_json, read_record
from peft_study.run_config import CellConfig
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import RunnerParams

data, place = map(Path, sys.argv[1:])
cell = Cell(read_record(Path("config.json"), CellConfig), data, None, place)
run_cells([cell], RunnerParams.model_validate(read_json(Path("runner.json"))))
"""


def local(workers: int | str = 2, **values: Any) -> RunnerParams:
    ray = RayParams(num_cpus=1, num_gpus=0, memory_gigabytes=0.5)
    settings = {"backend": "local", "checkpoint_seconds": 60.0, "store_gigabytes": 1.0, "ray": ray}
    return RunnerParams.model_validate(settings | {"workers": workers} | values)


@dataclass(frozen=True)
class Study:
    """Cells of one task, each in a subfolder of `folder`, and what training them prints."""

    folder: Path
    model: Path
    data: Path
    capsys: pytest.CaptureFixture[str]

    def cell(self, name: str, seeds: tuple[int, ...], method: str = "lora", **train: Any) -> Cell:
        config = CellConfig(make_config(method, self.model, **train), seeds)
        return Cell(config, self.data, None, self.folder / name)

    def train(self, *cells: Cell, **runner: Any) -> Any:
        self.capsys.readouterr()
        run_cells(list(cells), local(**runner))
        return self.capsys.readouterr()


@pytest.fixture
def study(
    tmp_path: Path,
    model_path: Path,
    learnable: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study(tmp_path, model_path, learnable, capsys)


def test_results_do_not_depend_on_the_number_of_workers(study: Study) -> None:
    found = []
    for workers in (1, 3):
        cells = [study.cell(f"{workers}/{name}", (1, 2), name) for name in ("lora", "full_ft")]
        printed = study.train(*cells, workers=workers, store_gigabytes=0.0).out
        place = study.folder / str(workers)
        found.append(run_files(place))
        assert printed.count("lora movie_polarity seed 2: accuracy 0.") == 1
        assert STORED not in printed
        assert f"wrote 4 run(s) to {place}/, " in printed
    assert len(found[0]) == 2 * 2 * 6
    assert found[0] == found[1]


def test_a_run_is_trained_once(study: Study) -> None:
    """A sixth seed trains one run; a changed parameter trains all; changed back, none."""

    def trained(name: str, *seeds: int, **train: Any) -> int:
        printed = study.train(study.cell(name, seeds, **train)).out
        return len(seeds) - printed.count(STORED)

    assert trained("first", 1, 2) == 2
    assert trained("second", 1, 2, 3) == 1
    assert trained("other", 1, 2, learning_rate=1e-3) == 2
    assert trained("third", 1, 2, 3) == 0
    assert run_files(study.folder / "second") == run_files(study.folder / "third")
    again = study.train(study.cell("fourth", (1, 2, 3)), workers=1, checkpoint_seconds=1.0)
    assert again.out.count(STORED) == 3


@pytest.mark.parametrize("damage", ["truncated", "changed", "without manifest"])
def test_a_damaged_entry_is_reported_and_trained_again(damage: str, study: Study) -> None:
    study.train(study.cell("first", (1,)))
    (entry,) = (study.folder / ".run_store/runs").iterdir()
    victim = entry / ("manifest.json" if damage == "without manifest" else "predictions.parquet")
    content = victim.read_bytes()
    if damage == "without manifest":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(content[:-10])
    else:
        victim.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    printed = study.train(study.cell("second", (1,)))
    assert "damaged, so it is trained again" in printed.err
    assert STORED not in printed.out
    assert run_files(study.folder / "first") == run_files(study.folder / "second")


def test_the_store_keeps_within_its_size(study: Study) -> None:
    limit = 2.5 * 4e6 / 1e9  # a run of this model takes about 4 MB
    study.train(study.cell("runs", (1, 2, 3), "full_ft"), workers=1, store_gigabytes=limit)
    entries = list((study.folder / ".run_store/runs").iterdir())
    kept = sum(f.stat().st_size for entry in entries for f in entry.rglob("*") if f.is_file())
    assert 0 < kept <= limit * 1e9
    assert len(run_files(study.folder / "runs")) == 3 * 6
    again = study.train(study.cell("again", (3,), "full_ft"), store_gigabytes=limit)
    assert STORED in again.out  # the first to go was the oldest


@pytest.fixture
def start(study: Study) -> Callable[[str], Any]:
    """Return a function that starts a command which trains three runs into a folder."""
    cell = study.cell("", (1, 2, 3), epochs=60, evaluations_per_epoch=1)
    write_json(study.folder / "config.json", cell.config)
    runner = local(checkpoint_seconds=0.05).model_dump()
    write_json(study.folder / "runner.json", runner)
    command = [sys.executable, "-c", COMMAND, str(study.data)]
    how: dict[str, Any] = {"cwd": study.folder, "start_new_session": True, "text": True}
    how |= {"env": os.environ | {"PYTHONPATH": str(ROOT / "src")}}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return lambda place: subprocess.Popen([*command, place], **how)


def checkpoints(store: Path) -> set[Path]:
    return set(store.glob("unfinished/*/checkpoint-*")) | set(store.glob("runs/*"))


def test_killed_at_any_moment_it_ends_with_the_same_bytes_as_two_that_share_a_store(
    start: Callable[[str], Any], tmp_path: Path
) -> None:
    """Every second kill falls before the first new checkpoint, the others some time after.

    `make test` kills once each way, at the same moments every time; `make nightly` at new ones.
    """
    processes = [start("one"), start("two")]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    whole, store = run_files(tmp_path / "one"), tmp_path / ".run_store"
    assert run_files(tmp_path / "two") == whole
    assert len(whole) == 3 * 6
    assert len(list((store / "runs").iterdir())) == 3
    store.rename(tmp_path / "other_store")
    moments = random.Random() if NIGHTLY else random.Random(0)
    for number in range(12 if NIGHTLY else 2):
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


def test_a_mistake_found_in_a_run_reaches_the_user(study: Study) -> None:
    broken = replace(study, model=Path("no/such/folder"))
    with pytest.raises(StudyError, match="no such folder"):
        study.train(broken.cell("runs", (1, 2)))


def _die_in_the_second(job: Job, *rest: Any) -> None:
    if job.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    here._train(job, *rest)


def _disk_full_in_the_second(job: Job, *rest: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if job.seed == 2:
        RunStore.keep = full  # type: ignore[method-assign]
    here._train(job, *rest)


@pytest.mark.parametrize(
    ("accident", "named"),
    [
        (_die_in_the_second, "was killed, perhaps for want of memory; lower runner"),
        (_disk_full_in_the_second, "seed 2: No space left on device; mend it and run"),
    ],
)
def test_an_accident_costs_the_run_that_it_befalls_and_no_other(
    accident: Callable[..., None], named: str, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = study.cell("runs", (1, 2, 3))
    with monkeypatch.context() as patched:
        patched.setattr(here, "_train", accident)
        with pytest.raises(StudyError, match=named) as caught:
            study.train(some, workers=1)
    assert "\n" not in str(caught.value)
    assert study.train(some, workers=1).out.count(STORED) == 2


def test_a_loss_that_is_not_finite_ends_its_run_alone(study: Study) -> None:
    """It would not be finite the next time either: the run is finished, without a result."""
    diverging = study.cell("diverging", (1,), "full_ft", learning_rate=1e30)
    for stored in (0, 2):
        printed = study.train(diverging, study.cell("sound", (1,))).out
        assert "full_ft movie_polarity diverging seed 1: no result: the loss is nan" in printed
        assert "lora movie_polarity sound seed 1: accuracy" in printed
        assert printed.count(STORED) == stored
    assert set(run_files(study.folder / "diverging")) == {"seed-1/run.json"}


def test_what_starts_from_a_failed_run_has_no_result_either(study: Study) -> None:
    diverging = study.cell("", (1,), learning_rate=1e30).config
    init = InitConfig({"lora": diverging}, {"lora": "lora"})
    train_starts(init, study.data, study.folder / "init", local())
    runs = replace(study.cell("runs", (1, 2)), start=study.folder / "init/lora/start")
    why = "no result: its start, the intermediate run: the loss"
    assert study.train(runs).out.count(why) == 2
    assert "failure" in read_json(runs.directory / "seed-2/run.json")


def test_a_study_of_a_sweep_alone_has_a_folder_of_starts_too(study: Study) -> None:
    train_starts(InitConfig({}, {}), study.data, study.folder / "init", local())
    assert (study.folder / "init").is_dir()


def test_auto_uses_every_core_that_memory_allows(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = {"splits": {"train": {"token_length_percentiles": {"100": 20.0}}}}
    monkeypatch.setattr(here, "read_json", lambda _: summary)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    some = study.cell("", tuple(range(25)), "full_ft")
    jobs = [Job(some, seed, "") for seed in some.config.seeds]
    per_run = here.estimated_bytes(some)
    # A core left idle while the last jobs run is worse than cores that are shared.
    cases: list[tuple[float, int, int]] = [(100, 5, 5), (100, 16, 8), (100, 20, 20), (100, 25, 8)]
    cases += [(15.5, 20, 8), (3.5, 20, 3), (3.5, 5, 3), (0.1, 20, 1)]
    for runs_that_fit, number, count in cases:
        free = runs_that_fit * per_run
        monkeypatch.setattr(here, "available_bytes", lambda free=free: free)
        assert here.worker_count(jobs[:number], "auto") == count
    assert here.worker_count(jobs, 30) == len(jobs)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "CGROUP", tmp_path)
    everything = here.available_bytes()
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert here.available_bytes() == pytest.approx(everything, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    assert here.available_bytes() == 4300
