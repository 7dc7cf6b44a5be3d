"""Seconds, tokens and joules of training steps, methods taking turns."""

import math
import random
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from peft_study.profiling.intervals import ratio
from peft_study.profiling.meters import Meter, PhaseClock, clock_of, synchronize
from peft_study.records.costs import EnergyCost, MeanAndStd, Recipe, StepCost, StepSeconds
from peft_study.run_config import RunConfig
from peft_study.training import loop
from peft_study.training.batches import load_splits

T = TypeVar("T")
WARM_UP_STEPS = 3
ENERGY_WINDOWS = 3
WINDOW_SECONDS = 2.0  # NVML's counter moves every 100 ms
PHASES = ("forward", "backward", "optimiser")


class Training:
    """One cell's training, a step at a time; cells with one batch size see the same batches."""

    def __init__(self, config: RunConfig, data: Path) -> None:
        (train, _), task, hyper = load_splits(data), config.definition, config.train
        accelerator = loop.make_accelerator(hyper)
        model = accelerator.prepare(loop.build(config, seed=1)[1])
        adamw = loop.make_optimizer(model, hyper)
        self.device = accelerator.device
        self.phases, self.clock = PhaseClock(self.device), clock_of(self.device)
        self.rows = len(train)
        self.tokens = sum(len(row) for row in train.columns["input_ids"])
        self.steps_per_epoch = math.ceil(len(train) / hyper.batch_size)
        self._steps = loop.training_steps(
            model, adamw, train, task, hyper, 1, accelerator, phase=self.phases.phase
        )

    def step(self) -> dict[str, float]:
        """Train one batch; return its seconds, as a whole and by phase, and its tokens."""
        self.phases.take()
        synchronize(self.device)
        begin = self.clock()
        tokens = next(self._steps).tokens
        synchronize(self.device)
        return {"step": self.clock() - begin, "tokens": tokens} | self.phases.take()


def profile_training(
    configs: dict[str, RunConfig], data: Path, rounds: int, reference: str
) -> list[StepCost]:
    """Measure training steps of every cell: one of each a round, in an order that is drawn.

    Seconds per epoch come from those that each step took for a token: mean and std over the rounds.
    The ratio is of these, to those of the cell `reference` in the same round. Where both have one
    batch size that is the ratio of their steps, on the same batch.
    """
    trainings = {name: Training(config, data) for name, config in configs.items()}
    for training in trainings.values():
        for _ in range(WARM_UP_STEPS):
            training.step()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in configs}
    for number in range(rounds):
        for name in shuffled(trainings, number):
            found[name].append(trainings[name].step())
    columns = {
        name: {key: np.array([row[key] for row in rows]) for key in rows[0]}
        for name, rows in found.items()
    }
    each = {name: column["step"] / column["tokens"] for name, column in columns.items()}
    costs = []
    for name, training in trainings.items():
        column, epochs = columns[name], each[name] * training.tokens
        per_epoch = MeanAndStd(float(epochs.mean()), float(epochs.std(ddof=1)))
        tokens = float(sum(column["tokens"]) / sum(column["step"]))  # a second
        examples = tokens * training.rows / training.tokens
        seconds = StepSeconds(**{key: float(column[key].mean()) for key in (*PHASES, "step")})
        speeds = per_epoch, examples, tokens, ratio(each[name], each[reference])
        costs.append(StepCost(Recipe.of(configs[name]), rounds, seconds, *speeds))
    return costs


def profile_energy(configs: dict[str, RunConfig], data: Path, meter: Meter) -> list[EnergyCost]:
    """Measure the joules of training steps, cells taking turns in windows of a few seconds."""
    trainings = {name: Training(config, data) for name, config in configs.items()}
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in configs}
    for number in range(-1, ENERGY_WINDOWS):  # the first warms up
        for name in shuffled(trainings, number):
            window = measure_window(trainings[name], meter)
            if number >= 0 and not math.isnan(window[0]):
                found[name].append(window)
    costs = []
    for name, training in trainings.items():
        joules = statistics.fmean(joules / steps for joules, _, steps in found[name])
        watts = statistics.fmean(joules / seconds for joules, seconds, _ in found[name])
        per_epoch = joules * training.steps_per_epoch
        costs.append(EnergyCost(Recipe.of(configs[name]), joules, per_epoch, watts))
    return costs


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


def shuffled(names: Iterable[T], number: int) -> list[T]:
    """Return `names` in an order of their own for every round, always the same.

    What drifts, warms up, or is left behind by whoever was measured before, falls on all alike.
    """
    drawn = list(names)
    random.Random(number).shuffle(drawn)
    return drawn
