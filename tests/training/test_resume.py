"""A run that goes on from a checkpoint writes what an uninterrupted one writes."""

from pathlib import Path

import pytest

from conftest import Interrupted, InterruptedAfter, make_config, run_files
from peft_study.methods import METHODS
from peft_study.training.loop import build, make_optimizer, train_run
from peft_study.training.resume import Checkpoint, Progress


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("report", ["best", "last"])
def test_an_interrupted_run_ends_with_the_same_bytes(
    method: str, report: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """Interrupted within an epoch, at an evaluation, twice, and after the last step."""
    config = make_config(method, model_path, report=report)
    train_run(config, 3, learnable, None, tmp_path / "whole")
    for step in (3, 4, 11, 16):
        checkpoint = InterruptedAfter(tmp_path / "c", step)
        with pytest.raises(Interrupted):
            train_run(config, 3, learnable, None, tmp_path / "run", checkpoint)
        assert len(list((tmp_path / "c").iterdir())) == 1
    train_run(config, 3, learnable, None, tmp_path / "run", Checkpoint(tmp_path / "c", 60))
    assert run_files(tmp_path / "run") == run_files(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["truncated", "changed", "unfinished"])
def test_a_damaged_checkpoint_is_reported_and_not_used(
    damage: str,
    model_path: Path,
    learnable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config("lora", model_path)
    with pytest.raises(Interrupted):
        train_run(config, 3, learnable, None, tmp_path / "run", InterruptedAfter(tmp_path / "c", 5))
    (path,) = (tmp_path / "c").iterdir()
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-5])
    elif damage == "changed":
        path.write_bytes(content[:-5] + b"xxxxx")
    else:
        path.rename(tmp_path / "c" / "checkpoint-unfinished.safetensors")
    _, model = build(config, 3)
    progress = Checkpoint(tmp_path / "c", 60).load(model, make_optimizer(model, config.train))
    assert progress == Progress()
    warned = "damaged, so it is not used" in capsys.readouterr().err
    assert warned == (damage != "unfinished")  # what a kill leaves is no cause for alarm
    assert not list((tmp_path / "c").iterdir())
