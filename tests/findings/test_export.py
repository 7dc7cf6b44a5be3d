"""Adapters that others can load."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from conftest import make_config
from peft_study.encoders.backbone import load_model
from peft_study.files import read_json
from peft_study.findings.export import export_adapter, median_seed
from peft_study.methods import load_adapter, load_method
from peft_study.study import method_params_of
from peft_study.training.loop import build, train_run

STUDY: dict[str, Any] = {
    "study": "small",
    "model": {"name": "some/encoder", "revision": "ab" * 20, "max_length": 32},
    "data": {"source": "opinions"},
    "main_metrics": {"movie_polarity": "accuracy"},
    "outputs": {"movie_polarity": ["negative", "positive"]},
    "mnli_init": {"mode": "per_method", "task": "product_polarity", "tasks": []},
    "adapters": {"lora": {"r": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["query", "value"]}},
}


def cell(scores: dict[str, float]) -> dict[str, Any]:
    evaluations = {
        seed: {key: {"accuracy": score, "epoch": 1.0, "step": 8} for key in ("best", "last")}
        for seed, score in scores.items()
    }
    return {
        "task": "movie_polarity",
        "method": "lora",
        "report": "best",
        "trainable": {"adapter": 2048, "head": 66, "total": 2114},
        "data": {
            "train": {"rows": 60, "sha256_of_ids": "ab"},
            "validation": {"rows": 20, "sha256_of_ids": "cd"},
        },
        "seeds": evaluations,
    }


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
    config = make_config("lora", model_path) | {"save_weights": True}
    train_run(config, 3, learnable, None, tmp_path / "runs/seed-3")
    scores = {"1": 0.5, "2": 0.7, "3": 0.6}
    export_adapter(STUDY, cell(scores), tmp_path / "runs", tmp_path / "out")
    assert read_json(tmp_path / "out/adapter_config.json")["revision"] == "ab" * 20
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "| accuracy | 0.6000 | 0.6000 | 0.1000 | 3 |" in card
    assert "seed 3" in card
    assert "2,048 + 66 trained parameters" in card

    encoder = load_model(str(model_path), 2, seed=9)
    theirs = peft.PeftModel.from_pretrained(encoder, str(tmp_path / "out")).eval()
    method, ours = build(config, seed=1)
    load_adapter(ours, method, method_params_of(config), tmp_path / "runs/seed-3/adapter")
    tokens = {"input_ids": torch.tensor([[101, 7592, 2088, 102]])}
    with torch.no_grad():
        logits = [model(**tokens).logits for model in (theirs, ours.eval())]
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)
    assert load_method("lora") is method
