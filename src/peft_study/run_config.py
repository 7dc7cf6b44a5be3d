"""One run, resolved and typed: what a stage reads, and what a run depends on but data and start.

`peft_study.configure` makes these records from the parameters and the tables, once.
"""

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Literal

from peft_study.data.tasks import Task
from peft_study.encoders.architectures import Architecture, Weight
from peft_study.records import Record

# A run's saved weights, with their description, in PEFT's format for LoRA.
ADAPTER, WEIGHTS_FILE, CONFIG_FILE = "adapter", "adapter_model.safetensors", "adapter_config.json"
SAVED_RUN = "study.json"
# Beside exported adapters: the encoder that they were trained on, where that was fine-tuned.
ENCODER, MODEL_FILE = "encoder", "model.safetensors"
PEFT_PREFIX = "base_model.model."  # of the names of an adapter's weights, and of all heads'

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["float32", "tf32", "bfloat16"]
Schedule = Literal["linear", "constant"]


class LoraSettings(Record):
    """Low-rank adaptation (Hu et al. 2021, section 4.1); `dropout` is before A.

    A is drawn from a normal distribution of deviation `init_std`, or Kaiming-uniform if it is None.
    """

    r: int
    alpha: float
    dropout: float
    targets: tuple[Weight, ...]
    init_std: float | None = None


class AdapterHSettings(Record):
    """Bottleneck adapters (Houlsby et al. 2019, section 2.1): units and activation."""

    bottleneck: int
    activation: Literal["relu", "gelu", "swish", "tanh"]


class FullFtSettings(Record):
    """Full fine-tuning, of which nothing is to be set."""

    weights: Literal["all"] = "all"


class BitFitSettings(Record):
    """BitFit (Zaken et al. 2022, section 2), of which nothing is to be set."""

    weights: Literal["biases"] = "biases"


class PeftSettings(Record):
    """A tuner of PEFT by its own configuration, whose `peft_type` names it.

    Canonical names of weights may stand in it where PEFT wants names of modules. Where PEFT draws
    LoRA's A Kaiming-uniform, `init_std` is as in `LoraSettings`.
    """

    config: dict[str, Any]
    init_std: float | None = None


def drawn_from(keys: Iterable[str]) -> set[str]:
    """Return which keys of a configuration of PEFT are seeds."""
    return {key for key in keys if {"seed", "prng"} & set(key.split("_"))}


class AdaptersSettings(Record):
    """A method of the `adapters` library by its own words; layers of `leave_out` have none."""

    config: str
    leave_out: tuple[int, ...] = ()


class PredictionsSettings(Record):
    """Predictions that were made elsewhere, below `folder`.

    `sha256` has the hash of the file of each seed of one task by its name, `seed-1.csv`, say.
    """

    folder: str
    sha256: dict[str, str] = field(default_factory=dict)


Settings = (
    LoraSettings
    | AdapterHSettings
    | FullFtSettings
    | BitFitSettings
    | PeftSettings
    | AdaptersSettings
    | PredictionsSettings
)


class Hyperparameters(Record):
    """How a run is trained; `learning_rate` is the highest of its schedule.

    After warm-up the rate falls to 0 (`linear`) or stays what it is (`constant`).
    """

    epochs: int
    batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    schedule: Schedule
    warmup_ratio: float
    weight_decay: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    evaluations_per_epoch: int
    head: Literal["trained", "frozen"]
    report: Literal["best", "last"]
    device: Device
    precision: Precision


class Encoder(Record):
    """The pretrained encoder: its name, its revision or the hash of its files, and what it is."""

    name: str
    revision: str | None
    sha256: str | None
    architecture: Architecture


class RunConfig(Record):
    """What a run is asked to do, apart from its seed.

    `definition` is the task's row of its table, or the user's own; its texts are cut to
    `max_length` tokens, special ones included; `packages` are the versions of
    the libraries that may change the run's result. `keeps_head` tells whether the head, but for its
    output layer, is that of the intermediate run which it starts from.
    """

    method: str
    module: str
    task: str
    definition: Task
    encoder: Encoder
    settings: Settings
    train: Hyperparameters
    max_length: int
    save_weights: bool
    packages: dict[str, str]
    keeps_head: bool = False


class SavedRun(Record):
    """What saved weights are of: `study.json` beside them, for those who load them.

    Of the method only the module counts, whatever the study calls it. `tuned_encoder` is the hash
    of the weights of the fully fine-tuned encoder that was adapted, None for the pretrained one.
    """

    run: RunConfig
    seed: int
    tuned_encoder: str | None


class CellConfig(Record):
    """One method's runs on one task, by seed; `starts`: from the intermediate task's weights."""

    run: RunConfig
    seeds: tuple[int, ...]
    starts: bool = False


class RunResult(Record):
    """What a finished run says of itself; `failure` is why it has no result.

    `value` is the task's main metric at `step`, the evaluation that is reported; `seconds` are of
    training, on CPUs of the processor.
    """

    metric: str
    value: float | None
    step: int
    steps: int
    seconds: float
    failure: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"no result: {self.failure}"
        score = f"{self.metric} {self.value:.4f} at step {self.step} of {self.steps}"
        return f"{score}, {self.seconds:.0f} s of training"
