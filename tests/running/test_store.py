"""What a run's fingerprint covers."""

import shutil
import threading
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT, make_config
from peft_study.files import write_json
from peft_study.running import store as run_store
from peft_study.running.store import SOURCES, RunStore, fingerprint


def test_it_covers_the_sources_that_the_stage_depends_on() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    sources = {f"src/peft_study/{name}".replace("{method}", "${item.method}") for name in SOURCES}
    deps = {dep for dep in stages["train"]["deps"] if dep.startswith("src/")}
    assert deps == sources


def test_it_covers_parameters_seed_data_start_and_sources(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("lora", model_path) | {"seeds": [1]}
    other_data, start, package = tmp_path / "data", tmp_path / "start", tmp_path / "package"
    shutil.copytree(learnable, other_data)
    first = fingerprint(config, 1, learnable, None)
    # Neither the place of the data nor the other seeds count.
    assert fingerprint(config | {"seeds": [1, 2]}, 1, other_data, None) == first
    write_json(other_data / "summary.json", {})
    write_json(start / "start.json", {})
    assert fingerprint(config, 1, learnable, start) == first
    write_json(start / "adapter_config.json", {})
    found = {
        first,
        fingerprint(config, 2, learnable, None),
        fingerprint(config | {"task": "other"}, 1, learnable, None),
        fingerprint(config, 1, other_data, None),
        fingerprint(config, 1, learnable, start),
    }
    shutil.copytree(run_store.PACKAGE, package)
    monkeypatch.setattr(run_store, "PACKAGE", package)
    assert fingerprint(config, 1, learnable, None) == first
    (package / "metrics.py").write_text("")
    found.add(fingerprint(config, 1, learnable, None))
    assert len(found) == 6


def test_a_place_that_cannot_be_written_does_not_cost_the_entry(tmp_path: Path) -> None:
    store, run = RunStore(tmp_path / "store", 1), tmp_path / "run"
    write_json(run / "run.json", {})
    store.keep("abc", run, {"value": 1.0})
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        store.fetch("abc", tmp_path / "file" / "run")
    assert store.fetch("abc", tmp_path / "again") == {"value": 1.0}


def test_trimming_beside_commands_that_keep(tmp_path: Path) -> None:
    """Entries that come and go under its eyes do not stop it."""
    run = tmp_path / "run"
    write_json(run / "run.json", {})
    done = threading.Event()

    def keep() -> None:
        store = RunStore(tmp_path / "store", 1)
        while not done.is_set():
            with store.locked("abc"):
                store.keep("abc", run, {})

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        for _ in range(500):
            RunStore(tmp_path / "store", 0).trim()
    finally:
        done.set()
        thread.join()
