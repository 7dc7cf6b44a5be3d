"""Peak resident memory of a few training steps: LoRA beside full fine-tuning.

The model has the shape of BERT-base and random weights, all else is as the study in this folder
says; every measurement is a fresh process, whose peak includes Python and its libraries.

    python benchmarks/memory.py --rounds 3
"""

import multiprocessing
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cells import options, read_cell, spread
from peft_study.errors import run_command
from peft_study.run_config import RunConfig

T = TypeVar("T")
METHODS = ("lora", "full_ft")
SHAPES = ((16, 128), (8, 64))  # examples a batch, tokens an example


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps a measurement")
    arguments = parser.parse_args()
    configs = {method: read_cell(method, arguments.task).run for method in METHODS}
    peaks: dict[tuple[str, tuple[int, int]], list[float]] = {
        (method, shape): [] for shape in SHAPES for method in METHODS
    }
    with tempfile.TemporaryDirectory() as model:
        in_fresh_process(save_model, model)
        for number in range(arguments.rounds):
            order = list(peaks) if number % 2 == 0 else list(reversed(peaks))
            for method, shape in order:
                peak = in_fresh_process(peak_memory, configs[method], model, shape, arguments.steps)
                peaks[method, shape].append(peak)
    print("| batch | LoRA, GiB | full fine-tuning, GiB | LoRA / full |")
    print("| --- | ---: | ---: | ---: |")
    for shape in SHAPES:
        lora, full = peaks["lora", shape], peaks["full_ft", shape]
        ratio = statistics.median(lora) / statistics.median(full)
        columns = f"{spread(lora, '.2f')} | {spread(full, '.2f')} | {ratio:.2f}"
        print(f"| {shape[0]} x {shape[1]} | {columns} |")


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Call `function` in a process of its own, which starts with none of this one's memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def save_model(folder: str) -> None:
    """Write a random BERT-base (110 million parameters) into `folder`."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    AutoModelForSequenceClassification.from_config(BertConfig()).save_pretrained(folder)
    # A model's folder must hold a tokeniser; nothing reads this one.
    Path(folder, "vocab.txt").touch()


def peak_memory(config: RunConfig, folder: str, shape: tuple[int, int], steps: int) -> float:
    """Train `steps` batches of random tokens; return this process's peak memory in GiB."""
    import torch

    from peft_study.training import loop
    from peft_study.training.batches import Split

    batch_size, length = shape
    rows = steps * batch_size
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 30000, (rows, length), generator=generator)
    labels = torch.zeros(rows, dtype=torch.long if config.definition.labels else torch.float)
    split = Split([str(row) for row in range(rows)], {"input_ids": list(tokens)}, labels)
    hyper = replace(config.train, epochs=1, batch_size=batch_size, gradient_accumulation_steps=1)
    hyper = replace(hyper, device="cpu", precision="float32")
    encoder = replace(config.encoder, name=folder, revision=None)
    config = replace(config, encoder=encoder, train=hyper)
    accelerator = loop.make_accelerator(hyper)
    _, model = loop.build(config, seed=1)
    adamw = loop.make_optimizer(model, hyper)
    for _ in loop.training_steps(model, adamw, split, config.definition, hyper, 1, accelerator):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes, or KiB


if __name__ == "__main__":
    run_command(main)
