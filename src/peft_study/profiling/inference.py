"""Latency of inference: does an adapter cost anything, and does merging take the cost away?"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from peft_study.methods import METHODS, lora
from peft_study.profiling.intervals import ratio
from peft_study.profiling.meters import clock_of, synchronize
from peft_study.profiling.steps import shuffled
from peft_study.records.costs import InferenceCost, Latency, Percentiles, Recipe
from peft_study.run_config import FullFtSettings, RunConfig
from peft_study.training import loop
from peft_study.training.batches import Split, by_length, load_splits
from peft_study.training.packing import classify, pack

BASE, SECOND_COPY = Recipe(), Recipe("second copy")
ONE_BY_ONE = 10  # examples in a round

Models = dict[Recipe, PreTrainedModel]


def profile_inference(
    configs: list[RunConfig], data: Path, rounds: int
) -> tuple[list[InferenceCost], InferenceCost]:
    """Measure latency of the model without adapters, of each method's, and of our LoRA's, merged.

    Models take turns at every batch, in an order that is drawn for it: in each of the `rounds` at a
    few single examples of the prepared task's validation split, and at the whole of it, in batches
    of like lengths.

    Also returns what a second copy of the model without adapters takes, as a ratio to the first:
    as far as its interval reaches, the measurement cannot tell a model from another.
    """
    accelerator = loop.make_accelerator(configs[0].train)
    _, validation = load_splits(data)
    models = build_models(configs, accelerator)
    whole = list(by_length(validation, loop.EVALUATION_BATCH))
    found = []
    for number in range(-1, rounds):  # the first warms up
        copy_anew(models, number)
        rows = range(max(number, 0) * ONE_BY_ONE, (max(number, 0) + 1) * ONE_BY_ONE)
        alone = [[row % len(validation)] for row in rows]
        timed = [seconds_of(models, validation, b, number, accelerator) for b in (alone, whole)]
        found.append(timed)
    per_example, together = (
        {name: [timed[kind][name] / rows for timed in found[1:]] for name in models}
        for kind, rows in enumerate((ONE_BY_ONE, 1))
    )
    second_copy, *costs = (
        InferenceCost(
            name,
            describe(per_example[name], per_example[BASE]),
            describe(together[name], together[BASE]),
        )
        for name in models
    )
    return costs, replace(second_copy, recipe=BASE)


def build_models(configs: Sequence[RunConfig], accelerator: Accelerator) -> Models:
    """Return the models to measure, in evaluation mode: first the second copy, then BASE.

    BASE is what full fine-tuning adapts, without adapters, so that this has no model of its own.
    The weights are those at the start of training, with our LoRA's B drawn at random: what they are
    does not change the time.
    """
    plain = replace(
        configs[0], method="full_ft", module=METHODS["full_ft"].module, settings=FullFtSettings()
    )
    models: Models = {name: loop.build(plain, seed=1)[1] for name in (SECOND_COPY, BASE)}
    for config in configs:
        if isinstance(config.settings, FullFtSettings):
            continue
        model = models[Recipe.of(config)] = loop.build(config, seed=1)[1]
        if config.module == METHODS["lora"].module:
            randomise(model)
            merged = models[Recipe.of(config, merged=True)] = copy.deepcopy(model)
            lora.merge(merged)
    return {name: accelerator.prepare(model).eval() for name, model in models.items()}


def copy_anew(models: Models, number: int) -> None:
    """Replace models by copies in memory of their own, in the order of round `number`.

    Models whose weights are mapped from one file find them in the processor's caches, where the
    others have left them, and are up to 4% faster than one whose weights were merged. Where a copy
    lies may matter, too: with new ones in every round that is chance, which the intervals cover.
    """
    for name in shuffled(models, number):
        models[name] = copy.deepcopy(models[name])


@torch.no_grad()
def randomise(model: PreTrainedModel) -> None:
    """Set our LoRA's B, which starts at zero, to small random numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in lora.adapter_state(model).items():
        if "lora_B" in name:
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def seconds_of(
    models: Models, split: Split, batches: list[list[int]], number: int, accelerator: Accelerator
) -> dict[Recipe, float]:
    """Return the seconds that each model takes for `batches`, from tokens to logits.

    `number` is the round's, from which the order of the models is drawn for every batch.
    """
    device, spent = accelerator.device, dict.fromkeys(models, 0.0)
    clock = clock_of(device)
    for place, rows in enumerate(batches):
        for name in shuffled(models, number * len(batches) + place):
            synchronize(device)
            begin = clock()
            with accelerator.autocast():
                classify(models[name], pack(split, rows, models[name]))
            synchronize(device)
            spent[name] += clock() - begin
    return spent


def describe(values: list[float], reference: list[float]) -> Latency:
    """Return percentiles of `values`, and their ratio to `reference`."""
    seconds = Percentiles(*np.percentile(values, [50, 5, 95]).tolist())
    return Latency(len(values), seconds, ratio(values, reference))
