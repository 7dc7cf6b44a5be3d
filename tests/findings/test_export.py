"""Adapters that others can load."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import builders
from conftest import make_config
from peft_study.encoders.backbone import load_model
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.findings.export import export, median_seed
from peft_study.methods import load_method
from peft_study.methods.saved import load_adapter
from peft_study.records.scores import Cell, Counts, Rows
from peft_study.records.study import ModelInfo
from peft_study.training.loop import build, train_run

TASK = "movie_polarity"


def cell(scores: dict[str, float]) -> Cell:
    about: dict[str, Any] = {"data": {"train": Rows(60, "ab"), "validation": Rows(20, "cd")}}
    found = builders.cell("lora", TASK, *scores.values(), trainable=Counts(2048, 66, 2114), **about)
    return replace(found, seeds=dict(zip(scores, found.seeds.values(), strict=True)))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"1": 0.5, "2": 0.7, "3": 0.6}, "3"),
        ({"1": 0.5, "2": 0.5, "3": 0.6}, "1"),
        ({"1": 0.6, "2": 0.5}, "2"),
        ({"7": 0.6}, "7"),
    ],
)
def test_the_median_seed(scores: dict[str, float], expected: str) -> None:
    assert median_seed(cell(scores), "accuracy") == expected


def test_peft_loads_what_is_exported(model_path: Path, learnable: Path, tmp_path: Path) -> None:
    model = ModelInfo("some/encoder", "ab" * 20, 32)
    study = builders.study(("lora", "adapter_h"), {TASK: "accuracy"}, model=model)
    config = make_config("lora", model_path)
    run, out = tmp_path / "runs/lora" / TASK / "seed-3", tmp_path / "out/lora" / TASK
    lora = cell({"1": 0.5, "2": 0.7, "3": 0.6})
    cells = {("lora", TASK): lora, ("adapter_h", TASK): replace(lora, method="adapter_h")}
    with pytest.raises(StudyError, match="is not here; fetch it with 'dvc pull"):
        export(study, cells, tmp_path / "runs", tmp_path / "out")
    train_run(config, 3, learnable, None, run)
    assert export(study, cells, tmp_path / "runs", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lora"]
    assert read_json(out / "adapter_config.json")["revision"] == "ab" * 20
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| accuracy | 0.6000 | 0.6000 | 0.1000 | 3 |" in card
    assert "seed 3" in card
    assert "2,048 + 66 trained parameters" in card

    encoder = load_model(str(model_path), 2, seed=9)
    theirs = peft.PeftModel.from_pretrained(encoder, str(out)).eval()
    method, ours = build(config, seed=1)
    load_adapter(ours, method, config.settings, run / "adapter")
    tokens = {"input_ids": torch.tensor([[101, 7592, 2088, 102]])}
    with torch.no_grad():
        logits = [model(**tokens).logits for model in (theirs, ours.eval())]
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)
    assert load_method("lora") is method
