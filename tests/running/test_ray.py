"""Runs on a Ray cluster: the same bytes, also when a process or a node is lost on the way."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import make_config, run_files
from peft_study.errors import StudyError
from peft_study.run_config import CellConfig
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import RayParams, RunnerParams

# Ray's processes are nice; beside other work they would take forever.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

SEEDS = (1, 2, 3)
pytestmark = pytest.mark.slow


def runner(backend: str = "ray", address: str | None = None) -> RunnerParams:
    wanted = RayParams(address=address, num_cpus=1, num_gpus=0, memory_gigabytes=0.1)
    settings = {"workers": 1, "checkpoint_seconds": 60.0, "store_gigabytes": 1.0, "ray": wanted}
    return RunnerParams.model_validate(settings | {"backend": backend})


@pytest.fixture
def cell(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Cell]:
    monkeypatch.chdir(tmp_path)
    config = make_config("lora", model_path, epochs=60, evaluations_per_epoch=1)
    return lambda name: Cell(CellConfig(config, SEEDS), learnable, None, tmp_path / name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster whose head does not work, whose nodes have a launcher's variables."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "WORLD_SIZE", "PMI_SIZE"):
            patched.setenv(name, "4")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        yield found
        ray.shutdown()
        found.shutdown()


def workers() -> list[psutil.Process]:
    """Return the processes of this machine that train a run."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(part.startswith("ray::_train") for part in process.info["cmdline"] or [])
    ]


def once_training(action: Callable[[], None]) -> threading.Thread:
    """Do something two seconds after the first run has begun."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ray_writes_the_same_bytes_though_a_process_and_a_node_are_lost(
    cell: Callable[[str], Cell], cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cells([cell("here")], runner("local"))
    whole = run_files(tmp_path / "here")
    (tmp_path / ".run_store").rename(tmp_path / "other_store")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    lost: list[int] = []

    def lose() -> None:
        os.kill(workers()[0].pid, signal.SIGKILL)
        lost.append(1)
        # The command itself is connected to one of the nodes, and is lost with it.
        own = ray.get_runtime_context().get_node_id()
        cluster.remove_node(next(node for node in nodes if node.unique_id != own))
        lost.append(2)

    thread = once_training(lose)
    run_cells([cell("there")], runner(address=cluster.address))
    thread.join()
    assert lost == [1, 2]
    assert run_files(tmp_path / "there") == whole
    capsys.readouterr()
    run_cells([cell("again")], runner(address=cluster.address))
    assert capsys.readouterr().out.count("from the run store") == len(SEEDS)


def test_a_mistake_found_in_a_run_reaches_the_user(
    learnable: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster.add_node(num_cpus=1)
    config = CellConfig(make_config("lora", Path("no/such/folder")), SEEDS)
    broken = Cell(config, learnable, None, tmp_path / "runs")
    with pytest.raises(StudyError, match="no such folder") as caught:
        run_cells([broken], runner(address=cluster.address))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_named(cell: Callable[[str], Cell], address: str) -> None:
    with pytest.raises(StudyError, match=rf"runner\.ray\.address is '{address}': "):
        run_cells([cell("runs")], runner(address=address))
