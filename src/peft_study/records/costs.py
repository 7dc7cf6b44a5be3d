"""What a method costs, and how implementations agree."""

from collections.abc import Iterable
from typing import TypeVar

from peft_study.records import Record
from peft_study.records.scores import Counts, EpochSeconds, EqualScoreRun
from peft_study.run_config import LoraSettings, RunConfig


class Recipe(Record):
    """Which model a cost or a count is of; without a method, the pretrained one."""

    method: str | None = None
    rank: int | None = None
    weights: tuple[str, ...] = ()
    bottleneck: int | None = None
    merged: bool = False

    @classmethod
    def of(cls, run: RunConfig, merged: bool = False) -> "Recipe":
        """Return the recipe of a run, whose weights may be merged into the encoder's."""
        if isinstance(lora := run.settings, LoraSettings):
            return cls(run.method, lora.r, lora.targets, merged=merged)
        return cls(run.method, bottleneck=getattr(run.settings, "bottleneck", None))


class Batch(Record):
    """The rows of a method's batches, and in how many pieces each is computed."""

    rows: int
    pieces: int

    def __str__(self) -> str:
        return f"{self.rows}" + (f" in {self.pieces} pieces" if self.pieces > 1 else "")


class Ratio(Record):
    """A ratio to a reference, of medians over rounds or of means over processes, as its owner says.

    The interval is None below six rounds, or two processes.
    """

    value: float
    low: float | None
    high: float | None


class StepSeconds(Record):
    forward: float
    backward: float
    optimiser: float
    step: float


class MeanAndStd(Record):
    mean: float
    std: float


class StepCost(Record):
    """What a training step costs: mean seconds; `ratio` is of epochs, to a reference's."""

    recipe: Recipe
    n: int  # rounds
    seconds: StepSeconds
    seconds_per_epoch: MeanAndStd
    examples_per_second: float
    tokens_per_second: float
    ratio: Ratio


class MemoryParts(Record):
    libraries: int
    weights: int
    gradients: int
    optimiser_state: int
    activations: int
    allocator: int


class Amount(Record):
    """Bytes, the mean over processes, with its interval, and as a ratio to the reference's mean."""

    bytes: float
    low: float | None
    high: float | None
    ratio: Ratio


class MemoryUse(Record):
    """Of training: at its peak, and on average while it lasts."""

    peak: Amount
    mean: Amount


class MemoryCost(Record):
    """Of training, told both ways (see `peft_study.profiling.memory`), and of a task's files.

    `as_measured` is all that the system says of a process: on CPUs its resident set, on CUDA what
    NVML says of the device. `beyond_libraries` is without what a process that only imports the
    libraries takes: on CPUs without its resident set, on CUDA what PyTorch has allocated.
    """

    recipe: Recipe
    n: int  # processes
    as_measured: MemoryUse
    beyond_libraries: MemoryUse
    parts: MemoryParts
    explained: int
    stored: int
    peak_reserved: int | None = None  # by PyTorch, on CUDA alone


class Percentiles(Record):
    median: float
    p5: float
    p95: float


class Latency(Record):
    """Seconds over n rounds, and their ratio to those of the model without adapters."""

    n: int
    seconds: Percentiles
    ratio: Ratio


class InferenceCost(Record):
    """Latency: of an example alone, and of the whole validation set in batches of 64."""

    recipe: Recipe
    one_by_one: Latency
    validation_set: Latency


class EnergySource(Record):
    """What measured the energy, `estimate` if nothing did, or None with the reason."""

    source: str | None
    reason: str | None

    @property
    def measured(self) -> bool:
        return self.source not in (None, "estimate")


class IsoAccuracy(Record):
    """`metrics/iso_accuracy.json`: what it took to reach equal scores."""

    margin: float
    energy: EnergySource
    runs: tuple[EqualScoreRun, ...]
    seconds_per_epoch: tuple[EpochSeconds, ...]


class EnergyCost(Record):
    recipe: Recipe
    joules_per_step: float
    joules_per_epoch: float
    watts: float


class Machine(Record):
    cpu: str
    cores: int
    gpu: str | None
    memory: int
    system: str
    torch: str
    other_cpu_share: float  # what other programs used of the processors

    @property
    def name(self) -> str:
        return self.gpu or f"{self.cpu}, {self.cores} cores"


Row = TypeVar("Row", StepCost, MemoryCost, InferenceCost, EnergyCost)


def _of(rows: Iterable[Row], method: str | None, merged: bool = False) -> Row | None:
    wanted = method, merged
    return next((r for r in rows if (r.recipe.method, r.recipe.merged) == wanted), None)


class TaskProfile(Record):
    """What every method costs on one task, and a lookup of each cost; None of what has none.

    A method may be measured at several ranks: its own row is the first. `batches` are the study's,
    by method. Full fine-tuning adds no module, so that its latency is the base model's, which has
    no method; that of a second copy of this model says which differences are none.
    """

    task: str
    batches: dict[str, Batch]
    training: tuple[StepCost, ...]
    memory: tuple[MemoryCost, ...]
    inference: tuple[InferenceCost, ...]
    second_copy: InferenceCost
    energy: tuple[EnergyCost, ...]  # none without a source

    def step_of(self, method: str) -> StepCost | None:
        return _of(self.training, method)

    def memory_of(self, method: str) -> MemoryCost | None:
        return _of(self.memory, method)

    def inference_of(self, method: str | None, merged: bool = False) -> InferenceCost | None:
        return _of(self.inference, method, merged)

    def energy_of(self, method: str) -> EnergyCost | None:
        return _of(self.energy, method)


class Profile(Record):
    """`metrics/profile.json`: what every method costs, on each task of the profile."""

    machine: Machine
    energy: EnergySource
    tasks: tuple[TaskProfile, ...]

    def on(self, task: str) -> TaskProfile | None:
        """Return the costs on a task; None if it was not measured on it."""
        return next((found for found in self.tasks if found.task == task), None)


class ParityDifference(Record):
    """The largest absolute differences seen, by quantity, to another implementation of LoRA.

    `method` is the other implementation, `what` says what was compared, or how. `dropout` is that
    of LoRA, in training steps.
    """

    method: str | None
    weights: tuple[str, ...]
    what: str
    largest: dict[str, float]
    rank: int
    alpha: float
    dropout: float


class Parity(Record):
    """`metrics/parity.json`: counts by model and setting, on which all implementations agree.

    `checked` says in words what else was found to hold.
    """

    model: str
    tolerance: float
    settings: dict[str, Recipe]
    counts: dict[str, dict[str, Counts]]
    differences: tuple[ParityDifference, ...]
    checked: tuple[str, ...] = ()
