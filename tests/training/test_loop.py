"""One run: the same bytes twice, from the right start, reporting the right evaluation."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from peft_study.files import read_json
from peft_study.methods import load_adapter
from peft_study.tasks import TASKS
from peft_study.training.batches import load_splits
from peft_study.training.loop import (
    build,
    evaluation_points,
    parameter_groups,
    predict,
    train_run,
    training_steps,
)

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "alpha": 8.0, "dropout": 0.1, "targets": ["query", "value"]},
    "peft_lora": {"r": 4, "alpha": 8.0, "dropout": 0.1, "targets": ["query", "value"]},
    "loralib_lora": {"r": 4, "alpha": 8.0, "dropout": 0.1, "targets": ["query", "value"]},
    "adapter_h": {"bottleneck": 4, "activation": "gelu"},
    "full_ft": {"save_weights": True},
}


def make_config(method: str, model: Path, **train: Any) -> dict[str, Any]:
    hyper = {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "evaluations_per_epoch": 2,
        "head": "trained",
        "report": "best",
    }
    return {
        "method": method,
        "task": "movie_polarity",
        "task_definition": asdict(TASKS["movie_polarity"]),
        "model": str(model),
        "adapter": ADAPTERS[method],
        "train": hyper | train,
        "save_weights": True,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a task that can be learnt: the label is whether token 7 or token 9 is in the text."""
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("data")
    splits = {}
    for name, rows in (("train", 60), ("validation", 40)):
        labels = torch.randint(2, (rows,), generator=generator).tolist()
        ids = []
        for label in labels:
            length = int(torch.randint(3, 20, (1,), generator=generator))
            text = torch.randint(20, 40, (length,), generator=generator).tolist()
            ids.append([101, 7 + 2 * label, *text, 102])
        table = pa.table(
            {
                "id": [f"{name}:{i}" for i in range(rows)],
                "input_ids": pa.array(ids, pa.list_(pa.int32())),
                "label": labels,
            }
        )
        splits[name] = datasets.Dataset(table, fingerprint="test")
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("method", ADAPTERS)
def test_two_runs_write_the_same_bytes(
    method: str, model_path: Path, data: Path, tmp_path: Path
) -> None:
    contents, histories = [], []
    for name in ("first", "second"):
        train_run(make_config(method, model_path), 3, data, None, tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        contents.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
        del contents[-1]["history.csv"]
        history = pd.read_csv(tmp_path / name / "history.csv")
        histories.append(history.drop(columns=["train_seconds", "evaluation_seconds"]))
    pd.testing.assert_frame_equal(histories[0], histories[1])
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        "predictions.parquet",
        "run.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }


def test_lora_implementations_train_alike(model_path: Path, data: Path, tmp_path: Path) -> None:
    """With one seed the three draw the same A, order and dropout: whole runs agree."""
    predictions = []
    for method in ("lora", "peft_lora", "loralib_lora"):
        train_run(make_config(method, model_path), 1, data, None, tmp_path / method)
        frame = pd.read_parquet(tmp_path / method / "predictions.parquet")
        predictions.append(torch.tensor([list(row) for row in frame["logits"]]))
    torch.testing.assert_close(predictions[0], predictions[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions[0], predictions[2], atol=1e-5, rtol=0)


def test_seeds_differ_and_a_learnable_task_is_learnt(
    model_path: Path, data: Path, tmp_path: Path
) -> None:
    config = make_config("full_ft", model_path, epochs=15, learning_rate=1e-3)
    results = [train_run(config, seed, data, None, tmp_path / str(seed)) for seed in (1, 2)]
    assert all(result.value >= 0.95 for result in results)
    first, second = (tmp_path / str(seed) / "predictions.parquet" for seed in (1, 2))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("report", ["best", "last"])
def test_the_saved_adapter_is_the_reported_evaluation(
    report: str, model_path: Path, data: Path, tmp_path: Path
) -> None:
    config = make_config("lora", model_path, report=report, epochs=3)
    result = train_run(config, 2, data, None, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    reported = int(history["accuracy"].argmax()) if report == "best" else len(history) - 1
    assert result.step == history["step"].iloc[reported]
    assert read_json(tmp_path / "run.json")["reported_step"] == result.step
    # Load the adapter as a start, and predict: the logits of that evaluation come out again.
    method, model = build(config, seed=9)
    load_adapter(model, method, tmp_path / "adapter")
    frame, _ = predict(model, load_splits(data)[1], TASKS["movie_polarity"])
    stored = pd.read_parquet(tmp_path / "predictions.parquet")
    stored = stored[stored["step"] == result.step].reset_index()
    assert frame["id"].tolist() == stored["id"].tolist()
    logits = [torch.tensor([list(row) for row in f["logits"]]) for f in (frame, stored)]
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["lora", "adapter_h", "full_ft"])
def test_a_run_starts_from_the_intermediate_adapter_without_its_head(
    method: str, model_path: Path, data: Path, tmp_path: Path
) -> None:
    config = make_config(method, model_path)
    train_run(config, 1, data, None, tmp_path / "intermediate")
    start = tmp_path / "intermediate" / "adapter"
    # A step of almost no length shows where the run started.
    config = make_config(method, model_path, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    train_run(config, 2, data, start, tmp_path / "run")
    before = load_file(start / "adapter_model.safetensors")
    after = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    for name, value in after.items():
        is_head = "classifier" in name
        assert torch.allclose(value, before[name], atol=1e-6) != is_head or not value.any()


@pytest.mark.parametrize("method", ADAPTERS)
def test_what_is_frozen_does_not_move(method: str, model_path: Path, data: Path) -> None:
    config = make_config(method, model_path, head="frozen")
    adapter, model = build(config, 0)
    trained = {id(p) for p in adapter.adapter_state(model).values()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train, _ = load_splits(data)
    for _ in training_steps(model, train, TASKS["movie_polarity"], config["train"], 0):
        pass
    for name, parameter in model.named_parameters():
        if id(parameter) not in trained:
            assert torch.equal(parameter, before[name]), name
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) >= 0.9 * len(trained)


def test_evaluation_points() -> None:
    assert evaluation_points(epochs=2, steps_per_epoch=10, per_epoch=3) == [3, 7, 10, 13, 17, 20]
    assert evaluation_points(epochs=1, steps_per_epoch=2, per_epoch=5) == [1, 2]


def test_biases_and_norms_do_not_decay(model_path: Path) -> None:
    _, model = build(make_config("full_ft", model_path), 0)
    decaying, others = parameter_groups(model, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in others["params"])
    assert all(names[id(p)].endswith("weight") for p in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_learning_rate_warms_up_and_decays_to_zero(model_path: Path, data: Path) -> None:
    config = make_config("lora", model_path, warmup_ratio=0.25)
    _, model = build(config, 0)
    train, _ = load_splits(data)
    steps = list(training_steps(model, train, TASKS["movie_polarity"], config["train"], 0))
    assert len(steps) == 16
    rates = [step.learning_rate for step in steps]
    assert rates.index(max(rates)) == 3
    assert max(rates) == pytest.approx(5e-3)
    assert rates[-1] == 0
