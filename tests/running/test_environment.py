"""What the caller's environment says reaches neither a run nor the place of its sockets."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from conftest import ROOT, make_config, run_files
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.run_config import CellConfig
from peft_study.training.environment import KEPT, kept_variables, short_temporary_folder
from peft_study.training.loop import train_run
from project import PARAMS

PREFIXES = "ACCELERATE|OMPI|PMI|SLURM|MASTER|FSDP|DYNAMO|MV2"
READERS = ("accelerate", "adapters", "peft", "torch/distributed", "transformers/integrations")
# As launchers and MPI leave them, and settings that choose other kernels or other numbers.
LEFT = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
LEFT |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555", "PMI_SIZE": "2", "PMI_RANK": "0"}
LEFT |= {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "SLURM_NTASKS": "2"}
CHOSEN = {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
CHOSEN |= {"CUBLAS_WORKSPACE_CONFIG": ":0:0", "NVIDIA_TF32_OVERRIDE": "1", "USE_TORCH": "0"}
CHOSEN |= {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
CHOSEN |= {
    "TRANSFORMERS_VERBOSITY": "debug",
    "TORCH_LOGS": "+all",
    "HF_ENABLE_PARALLEL_LOADING": "1",
}


def left_behind() -> dict[str, str]:
    """Return every variable of the launchers' that the libraries read, set to what it may be."""
    names: set[str] = set()
    for reader in READERS:
        package, _, part = reader.partition("/")
        spec = PathFinder.find_spec(package)  # that adapters has loaded itself hides the other
        assert spec is not None
        for folder in spec.submodule_search_locations or ():
            for path in Path(folder, part).rglob("*.py"):
                found = re.findall(rf"\b(?:{PREFIXES})_[A-Z0-9_]+", path.read_text("utf-8"))
                names |= set(found)
    assert {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "OMPI_COMM_WORLD_RANK"} <= names
    return dict.fromkeys(names, "4") | LEFT | CHOSEN


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in left_behind().items():
        monkeypatch.setenv(name, value)


def test_no_run_in_this_process_reads_what_launchers_left(
    poisoned: None, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """As parity and the profile train, which start no process for it."""
    AcceleratorState._reset_state(reset_partial_state=True)  # as in a process that has just begun
    train_run(make_config("lora", model_path), 1, learnable, None, tmp_path / "poisoned")
    before = dict(os.environ)
    with kept_variables():
        train_run(make_config("lora", model_path), 1, learnable, None, tmp_path / "clean")
        assert "WORLD_SIZE" not in os.environ
        rest = set(os.environ) - KEPT - {"CUBLAS_WORKSPACE_CONFIG"}
        assert all(name.startswith("RAY_") for name in rest)
    assert dict(os.environ) == before
    assert run_files(tmp_path / "poisoned") == run_files(tmp_path / "clean")


@pytest.mark.slow
def test_a_stage_trains_the_same_bytes_whatever_the_environment_says(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """Also where temporary files lie so deep that no socket could lie there."""
    train_run(make_config("lora", model_path), 1, learnable, None, tmp_path / "here")
    (tmp_path / "params.yaml").write_text(PARAMS)
    cells = {"movie_polarity": CellConfig(make_config("lora", model_path), (1,))}
    write_json(tmp_path / "configs/train/lora.json", cells)
    write_json(tmp_path / "tuned/lora.json", {})
    data = tmp_path / "data/prepared/movie_polarity"
    shutil.copytree(learnable, data)
    longest = {"token_length_percentiles": {"100": 22.0}}
    write_json(data / "summary.json", {"splits": {"train": longest}})
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    result = subprocess.run(
        [sys.executable, str(ROOT / "stages/train.py"), "lora"],
        cwd=tmp_path,
        env=os.environ | left_behind() | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "lora movie_polarity seed 1: accuracy" in result.stdout
    found = run_files(tmp_path / "runs/lora/movie_polarity/seed-1")
    assert found == run_files(tmp_path / "here")


def test_sockets_lie_where_their_names_are_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length, moved in ((92, True), (66, True), (64, False), (20, False)):
        folder = Path("/tmp") / ("y" * (length - 5))
        folder.mkdir()
        try:
            monkeypatch.setenv("TMPDIR", str(folder))
            monkeypatch.setattr(tempfile, "tempdir", None)
            with short_temporary_folder(35):
                assert (tempfile.gettempdir() != str(folder)) == moved
                assert os.environ["TMPDIR"] == tempfile.gettempdir()
            assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(folder)
        finally:
            folder.rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("z" * 90)))
    monkeypatch.delenv("TMPDIR")
    with short_temporary_folder(35):
        assert os.environ["TMPDIR"] == "/tmp"
    assert "TMPDIR" not in os.environ
    with pytest.raises(
        StudyError, match=r"TMPDIR: '.*z' is too long for sockets .* at most 3 byte"
    ):
        short_temporary_folder(97).__enter__()
