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


class Ratio(Record):
    """A median ratio to a reference; its interval is None below six rounds."""

    median: float
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
    """What a training step costs: mean seconds, and their ratio to those of a reference."""

    recipe: Recipe
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


class MemoryCost(Record):
    """Of training (see `peft_study.profiling.memory`), and of the files of a task's weights."""

    recipe: Recipe
    peak: int
    mean: float
    parts: MemoryParts
    explained: int
    stored: int
    peak_reserved: int | None = None  # this and the next are CUDA's alone
    device_used: int | None = None


class Percentiles(Record):
    median: float
    p5: float
    p95: float


class Latency(Record):
    """Seconds over n rounds, and their ratio to the pretrained model's."""

    n: int
    seconds: Percentiles
    ratio: Ratio


class InferenceCost(Record):
    """Latency: per example one by one and in batches of 64, and of the whole validation set."""

    recipe: Recipe
    batch_1: Latency
    batch_64: Latency
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


class Energy(EnergySource, kw_only=True):
    cells: tuple[EnergyCost, ...] = ()  # none without a source


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


def _of(rows: Iterable[Row], method: str, merged: bool = False) -> Row | None:
    wanted = method, merged
    return next((r for r in rows if (r.recipe.method, r.recipe.merged) == wanted), None)


class Profile(Record):
    """`metrics/profile.json`: what every method costs on one task, and a lookup of each cost.

    A method may be measured at several ranks: its own row is the first. None if it has none.
    """

    task: str
    batch_size: int
    machine: Machine
    training: tuple[StepCost, ...]
    memory: tuple[MemoryCost, ...]
    inference: tuple[InferenceCost, ...]
    energy: Energy

    def step_of(self, method: str) -> StepCost | None:
        return _of(self.training, method)

    def memory_of(self, method: str) -> MemoryCost | None:
        return _of(self.memory, method)

    def inference_of(self, method: str, merged: bool = False) -> InferenceCost | None:
        return _of(self.inference, method, merged)

    def energy_of(self, method: str) -> EnergyCost | None:
        return _of(self.energy.cells, method)


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
