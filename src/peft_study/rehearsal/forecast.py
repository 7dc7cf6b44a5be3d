"""What a study would take on this machine: steps, hours, memory and disk.

A few steps of each method are timed with the study's real width at two depths, on the rehearsal's
rows; the time of a token grows with the depth in a straight line, and so do the weights.
"""

import math
import statistics
import sys
import tempfile
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import psutil

from peft_study import presets
from peft_study.data.draws import rows_of
from peft_study.errors import StudyError, run_command
from peft_study.files import read_record
from peft_study.methods.saved import count_trainable
from peft_study.profiling import meters
from peft_study.records import Record
from peft_study.rehearsal.rows import shape_of, write_model
from peft_study.rehearsal.small import architecture_of
from peft_study.run_config import AdaptersSettings, CellConfig, RunConfig
from peft_study.stage_configs import VariantsConfig
from peft_study.training import loop
from peft_study.training.batches import load_splits
from peft_study.training.packing import classify, pack

DEPTHS = (1, 3)
STEPS = 3
# About how many tokens a row has, special ones included, and how many rows are held out.
TOKENS = {"cola": 11, "sst2": 13, "mrpc": 53, "qqp": 30, "stsb": 31, "mnli": 39, "qnli": 50}
TOKENS |= {"rte": 70, "wnli": 37, "snli": 27, "ag_news": 53}
HELD_OUT = {"cola": 1_043, "sst2": 872, "mrpc": 408, "qqp": 40_430, "stsb": 1_500}
HELD_OUT |= {"mnli": 19_647, "qnli": 5_463, "rte": 277, "wnli": 71, "snli": 9_842, "ag_news": 7_600}
COPIES = 3  # of a run's files: in runs/, in DVC's cache and in the run store


class Timed(Record):
    """What one method takes at one depth, on one core: seconds and bytes.

    `forward` and `backward` are of a token, `optimiser` of a step; `activations` are of a token;
    `weights`, `trained` and `saved` count parameters.
    """

    forward: float
    backward: float
    optimiser: float
    activations: float
    weights: float
    trained: float
    saved: float

    def at(self, depth: int, other: "Timed", other_depth: int, wanted: int) -> "Timed":
        """Return what it takes at the depth `wanted`, on the line through two measured ones."""
        share = (wanted - depth) / (other_depth - depth)
        pairs = {key: (value, getattr(other, key)) for key, value in vars(self).items()}
        return Timed(**{key: a + share * max(0, b - a) for key, (a, b) in pairs.items()})


class Forecast(Record):
    """What a study would take on this machine.

    `hours` with `at_once` runs at a time; `memory` is of the largest run, in bytes, as `disk` is.
    """

    runs: int
    steps: int
    at_once: int
    hours: float
    memory: float
    disk: float

    def __str__(self) -> str:
        return (
            f"about {self.runs:,} runs with {self.steps:,} steps in all, {self.hours:,.1f} hours "
            f"with {self.at_once} at once, {self.memory / 1e9:.1f} GB of memory a run, "
            f"{self.disk / 1e9:,.1f} GB of disk"
        )


def forecast(name: str, folder: Path) -> Forecast:
    """Say what a study would take on this machine, whose rehearsal is in `folder`.

    Seconds are of training and of evaluations; the other stages take minutes. Where texts are the
    user's own, the rehearsal's stand for all of them.
    """
    study = presets.load(name)
    costs, libraries = timed_methods(name, folder), meters.resident_bytes()
    runs, steps, memory, seconds = 0, 0, 0.0, 0.0
    disk = 4 * max(cost.weights for cost in costs.values())  # the pretrained model
    for run in presets.planned(study):
        if run.rows is None or run.steps is None:
            raise StudyError(f"tasks.{run.task}: how many rows it has is not known")
        runs, steps = runs + run.seeds, steps + run.seeds * run.steps
        cost, hyper = costs[run.method], study.hyperparameters(run.method, run.params)
        tokens = TOKENS.get(run.task) or mean_tokens(_prepared(folder, run.task))
        held_out = run.params.validation_rows or HELD_OUT[run.task]
        evaluations = hyper.epochs * hyper.evaluations_per_epoch
        trained = hyper.epochs * run.rows * tokens * (cost.forward + cost.backward)
        trained += run.steps * cost.optimiser
        seconds += run.seeds * (trained + evaluations * held_out * tokens * cost.forward)
        piece = math.ceil(hyper.batch_size / hyper.gradient_accumulation_steps)
        # Weights in float32; what is trained has a gradient, two moments and the best evaluation's.
        of_weights = 4 * (cost.weights + 4 * cost.trained)
        memory = max(memory, libraries + of_weights + piece * tokens * cost.activations)
        disk += run.seeds * COPIES * (4 * cost.saved + 20 * held_out * evaluations)
        disk += 8 * run.rows * tokens
    cores = psutil.cpu_count() or 1
    at_once = max(1, min(cores, runs, int(psutil.virtual_memory().total / memory)))
    return Forecast(runs, steps, at_once, seconds / at_once / 3600, memory, disk)


def timed(config: RunConfig, data: Path) -> Timed:
    """Time training steps of a run on one core, and count what its forward pass keeps."""
    (train, _), hyper = load_splits(data), replace(config.train, epochs=STEPS + 1)
    accelerator = loop.make_accelerator(hyper)
    method, model = loop.build(config, seed=1)
    adamw, clock = loop.make_optimizer(model, hyper), meters.PhaseClock(accelerator.device)
    steps = loop.training_steps(
        model, adamw, train, config.definition, hyper, 1, accelerator, phase=clock.phase
    )
    next(steps)  # warms up
    found = []
    for step in islice(steps, STEPS):
        found.append((step.tokens, clock.take()))
    with meters.saved_tensors(model.parameters()) as saved:
        batch = pack(train, list(range(min(8, len(train)))), model)
        classify(model, batch)

    def median(phase: str, of_tokens: bool = True) -> float:
        return statistics.median(took[phase] / (n if of_tokens else 1) for n, took in found)

    counts = count_trainable(model, method)
    return Timed(
        forward=median("forward"),
        backward=median("backward"),
        optimiser=median("optimiser", of_tokens=False),
        activations=sum(saved.values()) / batch.tokens,
        weights=sum(parameter.numel() for parameter in model.parameters()),
        trained=counts["total"],
        saved=counts["total"] if config.save_weights else 0,
    )


def _prepared(folder: Path, task: str) -> Path:
    """Return where the rows of a task lie, which may be the intermediate one."""
    found = folder / "data/prepared" / task
    return found if found.is_dir() else folder / "data/intermediate"


def mean_tokens(prepared: Path) -> float:
    """Return the mean number of tokens of a task's training rows."""
    train, _ = load_splits(prepared)
    return statistics.fmean(map(len, train.columns["input_ids"]))


def timed_methods(name: str, folder: Path) -> dict[str, Timed]:
    """Return what each method of a study takes with its real model, by name.

    `folder` holds the study's rehearsal, whose rows and tokeniser are used.
    """
    shape, found = architecture_of(presets.load(name)), dict[str, Timed]()
    wanted = shape_of(shape).num_hidden_layers
    cells: dict[str, CellConfig] = {}
    listed = [
        read_record(file, dict[str, CellConfig]).values()
        for file in sorted((folder / "configs/train").glob("*.json"))
    ]
    variants = read_record(folder / "configs/variants.json", VariantsConfig).cells
    for cell in chain(*listed, (variant.config for variant in variants.values())):
        cells.setdefault(cell.run.method, cell)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        models = [Path(scratch, str(depth)) for depth in DEPTHS]
        for depth, model in zip(DEPTHS, models, strict=True):
            (tokeniser,) = {folder / cell.run.encoder.name for cell in cells.values()}
            write_model(shape, tokeniser, model, {"num_hidden_layers": depth})
        for method, cell in cells.items():
            if isinstance(cell.run.settings, AdaptersSettings):  # there are fewer layers here
                whole = replace(cell.run.settings, leave_out=())
                cell = replace(cell, run=replace(cell.run, settings=whole))
            data = rows_of(folder / "data/prepared" / cell.run.task, cell.seeds[0])
            shallow, deep = (
                timed(replace(cell.run, encoder=replace(cell.run.encoder, name=str(model))), data)
                for model in models
            )
            found[method] = shallow.at(DEPTHS[0], deep, DEPTHS[1], wanted)
    return found


def main() -> None:
    name, folder = sys.argv[1:]
    print(forecast(name, Path(folder)))


if __name__ == "__main__":
    run_command(main)
