"""Latency of inference: does an adapter cost anything, and does merging take the cost away?"""

import copy
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from peft_study.encoders.backbone import load_model
from peft_study.methods import METHODS, lora
from peft_study.profiling.intervals import ratio
from peft_study.profiling.meters import synchronize
from peft_study.profiling.steps import alternating
from peft_study.records.costs import InferenceCost, Latency, Percentiles, Recipe
from peft_study.run_config import RunConfig
from peft_study.training import loop
from peft_study.training.batches import Split, load_splits
from peft_study.training.packing import classify, pack

BASE = Recipe()
BATCH = 64
WARM_UP = 2
ONE_BY_ONE = 10  # examples in a round


def profile_inference(configs: list[RunConfig], data: Path, rounds: int) -> list[InferenceCost]:
    """Measure latency of every model: the pretrained one, and each method's; our LoRA merged, too.

    The weights are those at the start of training, with our LoRA's B drawn at random; what they are
    does not change the time. Models take turns within each of the `rounds`, in alternating order,
    on the validation split of the prepared task.
    """
    accelerator, task = loop.make_accelerator(configs[0].train), configs[0].definition
    _, validation = load_splits(data)
    models = build_models(configs, accelerator)
    found: dict[str, dict[Recipe, list[float]]] = {
        kind: {name: [] for name in models} for kind in ("batch_1", "batch_64", "validation_set")
    }
    for number in range(-WARM_UP, rounds):
        begin = max(number, 0) * BATCH
        batch = [row % len(validation) for row in range(begin, begin + BATCH)]
        for name in alternating(list(models), number):
            one_by_one = [
                seconds_of_batch(models[name], validation, [row], accelerator)
                for row in batch[:ONE_BY_ONE]
            ]
            together = seconds_of_batch(models[name], validation, batch, accelerator)
            if number >= 0:
                found["batch_1"][name].append(statistics.fmean(one_by_one))
                found["batch_64"][name].append(together)
    for number in range(max(3, rounds // 4)):
        for name in alternating(list(models), number):
            start = time.perf_counter()
            loop.predict(models[name], validation, task, accelerator)
            found["validation_set"][name].append(time.perf_counter() - start)
    return [
        InferenceCost(
            recipe, *(describe(seconds[recipe], seconds[BASE]) for seconds in found.values())
        )
        for recipe in models
    ]


def build_models(
    configs: list[RunConfig], accelerator: Accelerator
) -> dict[Recipe, PreTrainedModel]:
    """Return the pretrained model, each method's, and our LoRA's merged, in evaluation mode."""
    encoder, outputs = configs[0].encoder, configs[0].definition.num_outputs
    models = {BASE: load_model(encoder.name, outputs, 1, encoder.revision)}
    for config in configs:
        model = models[Recipe.of(config)] = loop.build(config, seed=1)[1]
        if METHODS[config.method].merges:
            randomise(model)
            merged = models[Recipe.of(config, merged=True)] = copy.deepcopy(model)
            lora.merge(merged)
    return {recipe: accelerator.prepare(model).eval() for recipe, model in models.items()}


@torch.no_grad()
def randomise(model: PreTrainedModel) -> None:
    """Set our LoRA's B, which starts at zero, to small random numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in lora.adapter_state(model).items():
        if "lora_B" in name:
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def seconds_of_batch(
    model: PreTrainedModel, split: Split, rows: list[int], accelerator: Accelerator
) -> float:
    """Return the seconds per example of one batch, from tokens to logits."""
    synchronize(accelerator.device)
    begin = time.perf_counter()
    with accelerator.autocast():
        classify(model, pack(split, rows, model))
    synchronize(accelerator.device)
    return (time.perf_counter() - begin) / len(rows)


def describe(values: list[float], reference: list[float]) -> Latency:
    """Return percentiles of `values`, and their ratio to `reference`."""
    seconds = Percentiles(*np.percentile(values, [50, 5, 95]).tolist())
    return Latency(len(values), seconds, ratio(values, reference))
