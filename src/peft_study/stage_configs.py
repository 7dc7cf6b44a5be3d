"""What each stage is asked to do, typed: the files of `configs/`, which `configure` writes."""

from collections.abc import Mapping
from dataclasses import field, replace

from peft_study.data.tasks import Task
from peft_study.records import Record
from peft_study.records.study import Report
from peft_study.records.variants import LedgerEntry
from peft_study.run_config import (
    CellConfig,
    Encoder,
    Hyperparameters,
    PeftSettings,
    PredictionsSettings,
    RunConfig,
    Settings,
)


class PrepareConfig(Record):
    """One task to prepare; `key` is that of the parameters, for messages.

    `location` decides the rows, as its source's `locate` returned it; of `train_rows` and
    `validation_rows` None takes all; `max_length` counts tokens, special ones included; each of
    `seeds` draws training rows of its own.
    """

    key: str
    task: str
    definition: Task
    source: str
    location: dict[str, object]
    split_seed: int
    train_rows: int | None
    validation_rows: int | None
    encoder: Encoder
    packages: dict[str, str]
    max_length: int
    seeds: tuple[int, ...] = ()


class TrialRows(Record):
    """A task whose training rows are split anew: a `share` of them chooses between trials."""

    task: PrepareConfig
    share: float


class PrepareConfigs(Record):
    """The tasks of the study, by name; the intermediate task, and the tasks that start from it.

    `elsewhere` has the predictions that others made of the tasks' held-out rows, by recipe and
    task: they are checked as soon as these rows are known, before anything is trained. `apart` are
    the tasks as variants of the study prepare them, and `trials` those whose training rows are
    split for tuning, by the folders that receive them.
    """

    tasks: dict[str, PrepareConfig]
    intermediate: PrepareConfig | None
    starters: tuple[str, ...]
    elsewhere: dict[str, dict[str, PredictionsSettings]] = field(default_factory=dict)
    apart: dict[str, PrepareConfig] = field(default_factory=dict)
    trials: dict[str, TrialRows] = field(default_factory=dict)


class InitConfig(Record):
    """The intermediate runs by method, and by method whose run its tasks start from."""

    cells: dict[str, CellConfig]
    starts: dict[str, str | None]


class VariantCell(Record):
    """One cell of a variant: what is trained, in `data`, from `start` if it starts from a run's.

    `report` is the evaluation that counts: no run is trained anew for it.
    """

    config: CellConfig
    data: str
    start: str | None
    report: Report

    @property
    def scored(self) -> CellConfig:
        """The cell with the evaluation that counts."""
        run = self.config.run
        return replace(self.config, run=replace(run, train=replace(run.train, report=self.report)))


class Start(Record):
    """An intermediate run of a variant: its cell, on the rows in the folder `data`."""

    cell: CellConfig
    data: str


class VariantsConfig(Record):
    """The cells of a study's variants by place, and by folder what they start from and their rows.

    `rows` say what decides these, so that the stage need not depend on more folders. `ledger` are
    the cells of the ledger in which the settings stand alone, and `together` whether those that
    raise the score are combined. Below `untuned` are the study's own cells, as they were before
    they were tuned.
    """

    cells: dict[str, VariantCell] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    rows: dict[str, PrepareConfig] = field(default_factory=dict)
    ledger: tuple[LedgerEntry, ...] = ()
    together: bool = False


class TrialConfig(Record):
    """A cell with other `values` of hyperparameters; `place` is that of its files."""

    values: dict[str, int | float]
    place: str
    cell: VariantCell


class TuneConfig(Record):
    """The study's methods, and the trials of each on each task: none if nothing is tuned.

    `starts` and `rows` are as of variants.
    """

    methods: tuple[str, ...]
    trials: tuple[TrialConfig, ...] = ()
    starts: dict[str, Start] = field(default_factory=dict)
    rows: dict[str, TrialRows] = field(default_factory=dict)


class ProfiledTask(Record):
    """The cells to measure on one task.

    `prepared` decides its rows: DVC cannot be told to depend on as many folders as a list names.
    """

    prepared: PrepareConfig
    cells: dict[str, RunConfig]


class ProfileConfig(Record):
    """What to measure on which tasks; `reference` is the cell that others are compared with.

    `methods` are in the order in which they are told of; there may be more than are measured.
    """

    tasks: tuple[ProfiledTask, ...]
    methods: tuple[str, ...]
    rounds: int
    reference: str
    assumed_watts: float | None
    packages: dict[str, str]


class ParityConfig(Record):
    """On which encoder, and with which versions, implementations are compared."""

    encoder: Encoder
    packages: dict[str, str]


def is_adalora(settings: Settings) -> bool:
    """Say whether a method reallocates ranks while it is trained, and plans that by a run's length.

    Source: Zhang et al. 2023, section 3.3.
    """
    return isinstance(settings, PeftSettings) and settings.config["peft_type"] == "ADALORA"


class RunLength(Record):
    """How long a run is: it reads the rows in the folder `data`, in batches, for some epochs."""

    data: str
    epochs: int
    batch_size: int

    @classmethod
    def of(cls, data: str, train: Hyperparameters) -> "RunLength":
        """Return the length of a run with these hyperparameters."""
        return cls(data, train.epochs, train.batch_size)


class CertifiedMethod(Record):
    """What decides a method's certificate; `lengths` of its runs, if it plans by these."""

    module: str
    settings: Settings
    lengths: tuple[RunLength, ...] = ()


class CertifyConfig(Record):
    """The methods to certify, on which encoder, and with which versions."""

    encoder: Encoder
    methods: dict[str, CertifiedMethod]
    packages: dict[str, str]

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        trained: Mapping[str, Mapping[str, CellConfig]],
        started: InitConfig,
        packages: dict[str, str],
    ) -> "CertifyConfig":
        """Take from the cells of each method, by task, what decides its certificate, and no more.

        Hyperparameters do not, but that AdaLoRA plans by the length of its runs.
        """
        methods = {}
        for name, cells in trained.items():
            runs = {f"data/prepared/{task}": cell.run for task, cell in cells.items()}
            if name in started.cells:
                runs["data/intermediate"] = started.cells[name].run
            one = next(iter(runs.values()))
            lengths = (RunLength.of(place, run.train) for place, run in runs.items())
            needed = tuple(lengths) if is_adalora(one.settings) else ()
            methods[name] = CertifiedMethod(one.module, one.settings, needed)
        return cls(encoder, methods, packages)
