"""Seconds, tokens and joules of training steps, methods taking turns."""

import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peft_study.data.tasks import Task
from peft_study.profiling.intervals import ratio
from peft_study.profiling.meters import Meter, PhaseClock, synchronize
from peft_study.training import loop
from peft_study.training.batches import load_splits

WARM_UP_STEPS = 3
ENERGY_WINDOWS = 3
WINDOW_SECONDS = 2.0  # NVML's counter moves every 100 ms
PHASES = ("forward", "backward", "optimiser")


class Training:
    """One cell's training, a step at a time; cells with one batch size see the same batches.

    Args:
        config: a cell of `configs/profile.json`.
        data: the prepared task.
    """

    def __init__(self, config: dict[str, Any], data: Path) -> None:
        train, _ = load_splits(data)
        hyper = config["train"]
        accelerator = loop.make_accelerator(hyper)
        _, model = loop.build(config, seed=1)
        self.device = accelerator.device
        model = accelerator.prepare(model)
        self.clock = PhaseClock(self.device)
        self.rows = len(train)
        self.tokens = sum(len(row) for row in train.columns["input_ids"])
        self.steps_per_epoch = math.ceil(len(train) / hyper["batch_size"])
        self._steps: Iterator[loop.Step] = loop.training_steps(
            model,
            loop.make_optimizer(model, hyper),
            train,
            Task.from_config(config["task_definition"]),
            hyper,
            seed=1,
            accelerator=accelerator,
            phase=self.clock.phase,
        )

    def step(self) -> dict[str, float]:
        """Train one batch; return its seconds, as a whole and by phase, and its tokens."""
        self.clock.take()
        synchronize(self.device)
        begin = time.perf_counter()
        tokens = next(self._steps).tokens
        synchronize(self.device)
        return {"step": time.perf_counter() - begin, "tokens": tokens} | self.clock.take()


def profile_training(
    configs: dict[str, dict[str, Any]], data: Path, rounds: int, reference: str
) -> dict[str, dict[str, Any]]:
    """Measure training steps of every cell: one of each a round, in alternating order.

    Args:
        configs: the cells of `configs/profile.json`.
        data: the prepared task.
        rounds: measured steps of each cell.
        reference: the cell that the others are compared with.

    Returns:
        By cell: `seconds` of a step, by phase and as a whole, means; `seconds_per_epoch`, from the
        seconds that each step took for a token: mean and std (ddof 1) over the rounds;
        `examples_per_second` and `tokens_per_second`; `ratio` of the step's seconds to those of
        `reference` in the same round, on the same batch: median with its 95% interval.
    """
    trainings = {name: Training(config, data) for name, config in configs.items()}
    for training in trainings.values():
        for _ in range(WARM_UP_STEPS):
            training.step()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in configs}
    for number in range(rounds):
        for name in alternating(list(trainings), number):
            found[name].append(trainings[name].step())
    profiles = {}
    for name, training in trainings.items():
        columns = {key: np.array([row[key] for row in found[name]]) for key in found[name][0]}
        epochs = columns["step"] / columns["tokens"] * training.tokens
        tokens_per_second = float(sum(columns["tokens"]) / sum(columns["step"]))
        profiles[name] = {
            "seconds": {key: float(columns[key].mean()) for key in (*PHASES, "step")},
            "seconds_per_epoch": {"mean": float(epochs.mean()), "std": float(epochs.std(ddof=1))},
            "examples_per_second": tokens_per_second * training.rows / training.tokens,
            "tokens_per_second": tokens_per_second,
            "ratio": ratio(columns["step"], [row["step"] for row in found[reference]]),
        }
    return profiles


def profile_energy(
    configs: dict[str, dict[str, Any]], data: Path, meter: Meter
) -> dict[str, dict[str, float]]:
    """Measure the joules of training steps, cells taking turns in windows of a few seconds.

    Returns:
        By cell: `joules_per_step` and `joules_per_epoch`, and the mean power in `watts`.
    """
    trainings = {name: Training(config, data) for name, config in configs.items()}
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in configs}
    for number in range(-1, ENERGY_WINDOWS):  # the first warms up
        for name in alternating(list(trainings), number):
            window = measure_window(trainings[name], meter)
            if number >= 0 and not math.isnan(window[0]):
                found[name].append(window)
    profiles = {}
    for name, training in trainings.items():
        joules = statistics.fmean(joules / steps for joules, _, steps in found[name])
        profiles[name] = {
            "joules_per_step": joules,
            "joules_per_epoch": joules * training.steps_per_epoch,
            "watts": statistics.fmean(joules / seconds for joules, seconds, _ in found[name]),
        }
    return profiles


def measure_window(training: Training, meter: Meter) -> tuple[float, float, int]:
    """Train for `WINDOW_SECONDS`; return the joules, the seconds and the number of steps."""
    steps = 0
    begin = time.perf_counter()
    meter.begin()
    while time.perf_counter() - begin < WINDOW_SECONDS:
        training.step()
        steps += 1
    joules = meter.end()
    return joules, time.perf_counter() - begin, steps


def alternating(names: list[str], number: int) -> list[str]:
    """Return `names` beginning with another in every round: what drifts, or warms up, cancels."""
    start = number % len(names)
    return names[start:] + names[:start]
