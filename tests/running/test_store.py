"""What a run's fingerprint covers, and what becomes of finished runs."""

import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT, make_config
from peft_study.files import write_json
from peft_study.methods import METHODS
from peft_study.run_config import RunResult
from peft_study.running import store as run_store
from peft_study.running.store import PACKAGE, RunStore, fingerprint, modules_of

RESULT, NAME = RunResult("accuracy", 1.0, 1, 1, 0.5), "ab" * 32


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_it_names_the_modules_that_a_run_loads(
    model_path: Path, learnable: Path, tmp_path: Path, programs: Path
) -> None:
    """What a run computes, these modules compute: the list names neither more nor fewer."""
    for method in METHODS:
        write_json(tmp_path / f"{method}.json", make_config(method, model_path, epochs=1))
    code = f"""
import os, sys
from pathlib import Path
from peft_study.files import read_record
from peft_study.run_config import RunConfig
from peft_study.training.loop import train_run
folder = Path({str(tmp_path)!r})
for path in sorted(folder.glob("*.json")):  # each in a process that has seen no other
    if os.fork() == 0:
        config = read_record(path, RunConfig)
        train_run(config, 1, Path({str(learnable)!r}), None, folder / config.method)
        print(config.method, *(name for name in sys.modules if name.startswith("peft_study")))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
    command, environment = [f"{programs}/python", "-c", code], os.environ | {"PYTHONPATH": "src"}
    printed = subprocess.check_output(command, text=True, env=environment, cwd=ROOT)
    lines = [line.split() for line in printed.splitlines()]
    loaded = {method: set(names) for method, *names in lines if method in METHODS}
    assert loaded == {method: modules_of(row.module) for method, row in METHODS.items()}


def test_the_stage_depends_on_every_module_that_a_run_loads() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    modules = {name for row in METHODS.values() for name in modules_of(row.module)}
    places = {name: ROOT / "src" / name.replace(".", "/") for name in modules}
    for stage in ("mnli_init", "train", "tune", "variants"):
        deps = [ROOT / dep for dep in stages[stage]["deps"]]
        for name, place in places.items():
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if len(file.read_text().splitlines()) > 1:  # most packages hold no code
                assert any(dep in (file, *file.parents) for dep in deps), (stage, name)


def test_it_covers_parameters_seed_data_start_and_sources(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("lora", model_path)
    other_data, start, package = tmp_path / "data", tmp_path / "start", tmp_path / "peft_study"
    shutil.copytree(learnable, other_data)
    first = fingerprint(config, 1, learnable, None)
    assert fingerprint(config, 1, other_data, None) == first  # the place of the data does not count
    write_json(other_data / "summary.json", {})
    write_json(start / "start.json", {})
    assert fingerprint(config, 1, learnable, start) == first
    write_json(start / "adapter_config.json", {})
    found = {
        first,
        fingerprint(config, 2, learnable, None),
        fingerprint(replace(config, task="other"), 1, learnable, None),
        fingerprint(config, 1, other_data, None),
        fingerprint(config, 1, learnable, start),
    }
    shutil.copytree(PACKAGE, package)
    monkeypatch.setattr(run_store, "PACKAGE", package)

    def after_appending(name: str, text: str) -> str:
        with (package / name).open("a") as file:
            file.write(text)
        run_store._sources.cache_clear()
        return fingerprint(config, 1, learnable, None)

    # Another row, another method and another label change no run; nor does what no run loads.
    assert after_appending("data/tasks.py", "TASKS['mine'] = TASKS['rte']\n") == first
    assert after_appending("methods/__init__.py", "# another label\n") == first
    assert after_appending("methods/full_ft.py", "# another method's\n") == first
    assert after_appending("findings/results.py", "# none of a run's\n") == first
    found.add(after_appending("data/metrics.py", "# a run's\n"))
    found.add(after_appending("methods/lora.py", "# its method's\n"))
    assert len(found) == 7
    run_store._sources.cache_clear()


def test_a_place_that_cannot_be_written_does_not_cost_the_entry(tmp_path: Path) -> None:
    store, run = RunStore(tmp_path / "store", 1), tmp_path / "run"
    write_json(run / "run.json", {})
    store.keep("abc", run, RESULT)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        store.fetch("abc", tmp_path / "file" / "run")
    assert store.fetch("abc", tmp_path / "again") == RESULT


def test_runs_that_lie_about_are_taken_if_they_are_sound(tmp_path: Path) -> None:
    for name in ("sound", "damaged", "there"):
        write_json(tmp_path / name / "run.json", {})
        RunStore(tmp_path / "elsewhere", 1).keep(name, tmp_path / name, RESULT)
    (tmp_path / "damaged/run.json").write_text("{ }")
    store = RunStore(tmp_path / "store", 1)
    store.keep("there", tmp_path / "there", RESULT)
    found = tmp_path / "runs/lora"
    for name in ("sound", "damaged", "there"):
        shutil.copytree(tmp_path / name, found / name)
    assert store.adopt(tmp_path / "runs") == 1
    shutil.rmtree(found)
    assert store.fetch("sound", found / "sound") == RESULT
    assert store.fetch("damaged", found / "damaged") is None


@pytest.mark.parametrize("foreign", ["runs/lora", "unfinished/thesis", "runs/0123abcd"])
def test_what_is_no_run_is_never_removed(foreign: str, tmp_path: Path) -> None:
    """A user may have named a folder in which other things lie."""
    run, other = tmp_path / "run", tmp_path / "store" / foreign / "file"
    write_json(run / "run.json", {})
    other.parent.mkdir(parents=True)
    other.write_text("of the user's")
    store = RunStore(tmp_path / "store", 0)
    store.keep(NAME, run, RESULT)
    store.trim()
    assert other.read_text() == "of the user's"
    assert store.fetch(NAME, tmp_path / "again") is None


def test_trimming_beside_commands_that_keep(tmp_path: Path) -> None:
    """Entries that come and go under its eyes do not stop it."""
    run = tmp_path / "run"
    write_json(run / "run.json", {})
    done = threading.Event()

    def keep() -> None:
        store = RunStore(tmp_path / "store", 1)
        while not done.is_set():
            with store.locked(NAME):
                store.keep(NAME, run, RESULT)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        for _ in range(500):
            RunStore(tmp_path / "store", 0).trim()
    finally:
        done.set()
        thread.join()
