"""Latency of inference: does an adapter cost anything, and does merging take the cost away?"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from peft_study.data.tasks import Task
from peft_study.encoders.backbone import load_model
from peft_study.methods import lora
from peft_study.profiling.intervals import ratio
from peft_study.profiling.meters import synchronize
from peft_study.profiling.steps import alternating
from peft_study.training import loop
from peft_study.training.batches import Split, load_splits
from peft_study.training.packing import classify, pack

BASE = "base model"
BATCH = 64
WARM_UP = 2
ONE_BY_ONE = 10  # examples in a round


def profile_inference(
    configs: dict[str, dict[str, Any]], data: Path, rounds: int
) -> dict[str, dict[str, Any]]:
    """Measure latency of every model: the pretrained one, and each cell's; our LoRA merged, too.

    The weights are those at the start of training, with our LoRA's B drawn at random; what they are
    does not change the time. Models take turns within a round, in alternating order.

    Args:
        configs: cells of `configs/profile.json`.
        data: the prepared task, whose validation split is computed.
        rounds: how often each is measured.

    Returns:
        By model, for `batch_1`, `batch_64` and `validation_set`: `seconds` (per example, per
        example, of the whole set): median, 5th and 95th percentile of `n` rounds; and `ratio` to
        the pretrained model in the same round: median with its 95% interval.
    """
    config = next(iter(configs.values()))
    accelerator = loop.make_accelerator(config["train"])
    task = Task.from_config(config["task_definition"])
    _, validation = load_splits(data)
    models = build_models(configs, task, accelerator)
    found: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in models} for kind in ("batch_1", "batch_64", "validation_set")
    }
    for number in range(-WARM_UP, rounds):
        rows = np.arange(BATCH) + max(number, 0) * BATCH
        batch = [int(row) % len(validation) for row in rows]
        for name in alternating(list(models), number):
            timed = {
                "batch_1": seconds_one_by_one(models[name], validation, batch, accelerator),
                "batch_64": seconds_of_batch(models[name], validation, batch, accelerator),
            }
            if number >= 0:
                for kind, seconds in timed.items():
                    found[kind][name].append(seconds)
    for number in range(max(3, rounds // 4)):
        for name in alternating(list(models), number):
            begin = time.perf_counter()
            loop.predict(models[name], validation, task, accelerator)
            found["validation_set"][name].append(time.perf_counter() - begin)
    return {
        name: {kind: describe(by_name[name], by_name[BASE]) for kind, by_name in found.items()}
        for name in models
    }


def build_models(
    configs: dict[str, dict[str, Any]], task: Task, accelerator: Accelerator
) -> dict[str, Any]:
    """Return the pretrained model, each cell's, and our LoRA's merged, in evaluation mode."""
    config = next(iter(configs.values()))
    base = load_model(config["model"], task.num_outputs, 1, config["model_revision"])
    models: dict[str, Any] = {BASE: base}
    for name, cell in configs.items():
        models[name] = loop.build(cell, seed=1)[1]
        if cell["method"] == "lora":
            merged = loop.build(cell, seed=1)[1]
            for model in (models[name], merged):
                randomise(model)
            lora.merge(merged)
            models[f"{name} merged"] = merged
    return {name: accelerator.prepare(model).eval() for name, model in models.items()}


@torch.no_grad()
def randomise(model: Any) -> None:
    """Set our LoRA's B, which starts at zero, to small random numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in lora.adapter_state(model).items():
        if "lora_B" in name:
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def seconds_of_batch(model: Any, split: Split, rows: list[int], accelerator: Accelerator) -> float:
    """Return the seconds per example of one batch, from tokens to logits."""
    synchronize(accelerator.device)
    begin = time.perf_counter()
    with accelerator.autocast():
        classify(model, pack(split, rows, model))
    synchronize(accelerator.device)
    return (time.perf_counter() - begin) / len(rows)


def seconds_one_by_one(
    model: Any, split: Split, rows: list[int], accelerator: Accelerator
) -> float:
    """Return the seconds per example of a few examples, each a batch of its own."""
    few = rows[:ONE_BY_ONE]
    return sum(seconds_of_batch(model, split, [row], accelerator) for row in few) / len(few)


def describe(values: list[float], reference: list[float]) -> dict[str, Any]:
    """Return percentiles of `values`, and their ratio to `reference`."""
    low, median, high = np.percentile(values, [5, 50, 95])
    return {
        "n": len(values),
        "seconds": {"median": float(median), "p5": float(low), "p95": float(high)},
        "ratio": ratio(values, reference),
    }
