"""The study as findings speak of it: `configs/report.json`."""

from dataclasses import field
from typing import Literal

from peft_study.records import Record

Report = Literal["best", "last"]  # the evaluation that is a run's result
Evaluated = Literal["first", "best", "last", "cross_fitted"]  # how a run is scored


def judged(report: Report) -> Evaluated:
    """Return the scores that differences and verdicts rest on: of rows that chose none of them."""
    return "cross_fitted" if report == "best" else report


class MethodInfo(Record):
    """A method of the study, as the table of methods and the parameters describe it."""

    name: str  # of its parameters and files
    label: str  # what figures and tables call it
    family: str  # `lora`, `adapter` or `full`, say; families share a colour
    computes: str  # methods of which this is the same are implementations of one
    place: int  # in the table of methods, which decides its marks in every figure
    exported: bool  # whether its adapters are saved in PEFT's format
    settings: dict[str, object]
    tasks: tuple[str, ...] | None = None  # its own, and its own seeds, where not the study's
    seeds: tuple[int, ...] | None = None
    citation: str | None = None  # who describes it, where its recipe says so
    published: str | None = None  # its name in published tables, where it has another here
    kind: str = ""  # the module that adapts: claims, and published rows, find methods by it

    @property
    def rank(self) -> int | None:
        return self._units("r")

    @property
    def bottleneck(self) -> int | None:
        return self._units("bottleneck")

    @property
    def peft_type(self) -> str | None:
        """What PEFT calls a tuner that a recipe declares by PEFT's own configuration."""
        config = self.settings.get("config")
        return str(config["peft_type"]) if isinstance(config, dict) else None

    @property
    def word(self) -> str:
        """The word of the `adapters` library that a recipe declares it by; "" of no such one."""
        config = self.settings.get("config")
        return config.partition("[")[0] if isinstance(config, str) else ""

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that LoRA adapts."""
        targets = self.settings.get("targets", ())
        return tuple(map(str, targets)) if isinstance(targets, (list, tuple)) else ()

    @property
    def trained_here(self) -> bool:
        """Whether the study trains it; of others it has predictions, and no costs."""
        return self.family != "elsewhere"

    def _units(self, key: str) -> int | None:
        config = self.settings.get("config")
        units = (config if isinstance(config, dict) else self.settings).get(key)
        return units if isinstance(units, int) else None


class TaskInfo(Record):
    name: str
    metric: str  # the main one
    labels: tuple[str, ...] | None  # in order; None for a regression
    max_length: int | None = None  # the most tokens of a text, where not the model's


class ModelInfo(Record):
    name: str
    revision: str | None
    max_length: int  # the most tokens of a text that it reads

    @property
    def short(self) -> str:
        """The name without its owner, in lower case, as `published.csv` has it."""
        return self.name.rpartition("/")[-1].lower()


class DataInfo(Record):
    source: str
    folder: str | None
    split_seed: int
    resample: str = "none"


class InitInfo(Record):
    mode: str
    task: str  # the intermediate one
    tasks: tuple[str, ...]  # that start from it


class SweepInfo(Record):
    """The grid of ranks and sets of weights; empty without a sweep."""

    task: str
    ranks: tuple[int, ...]
    weights: tuple[tuple[str, ...], ...]


class LedgerInfo(Record):
    """What the ledger changes, one setting at a time: overrides of the parameters, by name."""

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    settings: dict[str, dict[str, object]] = field(default_factory=dict)


class TuneInfo(Record):
    """What is tuned: values of each hyperparameter, or factors of each method's own.

    Trials hold out `rows`, a share of the training rows, and have seeds of their own.
    """

    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    factors: bool = False
    seeds: tuple[int, ...] = ()
    rows: float = 0.0


class StudyInfo(Record):
    """What findings say of the study: `configs/report.json`."""

    study: str
    model: ModelInfo
    data: DataInfo
    seeds: tuple[int, ...]
    methods: tuple[MethodInfo, ...]  # in the order of their table
    tasks: tuple[TaskInfo, ...]
    report: Report
    mnli_init: InitInfo
    sweep: SweepInfo
    equivalence_margin: float
    iso_margin: float
    published: tuple[str, ...]
    params: dict[str, object]
    packages: dict[str, str]
    known_labels: dict[str, str]  # of all methods: parity counts, and papers publish, others
    rehearsal: bool = False  # of a tiny random model: what is shown is no result
    ledger: LedgerInfo = LedgerInfo()
    tune: TuneInfo = TuneInfo()

    @property
    def judged(self) -> Evaluated:
        return judged(self.report)

    def method(self, name: str) -> MethodInfo | None:
        """Return a method of the study by name; None if it is not part of it."""
        return next((method for method in self.methods if method.name == name), None)

    def first(self, *kinds: str) -> MethodInfo | None:
        """Return the first method of a kind, else of the next; those built in go before recipes."""
        found = [method for kind in kinds for method in self.methods if method.kind == kind]
        return found[0] if found else None

    @property
    def lora(self) -> MethodInfo | None:
        """The method that stands for LoRA: ours, if the study has it."""
        return self.first("lora", "peft_lora", "loralib_lora")

    @property
    def full(self) -> MethodInfo | None:
        """The method that stands for full fine-tuning."""
        return self.first("full_ft")

    def role(self, kind: str) -> str:
        """Return the name of the method that stands for one of the table, its own if none does."""
        found = self.first(kind)
        if kind == "adapter_h" and not found:
            found = next((m for m in self.methods if m.word == "double_seq_bn"), None)
        return found.name if found else kind

    def trains(self, method: str, task: str) -> bool:
        """Tell whether the study trains a method on a task: it may have tasks of its own."""
        found = self.method(method)
        own = found.tasks if found else ()
        return task in (self.main_metrics if own is None else own)

    @property
    def labels(self) -> dict[str, str]:
        """The label of each of the study's methods, by name."""
        return {method.name: method.label for method in self.methods}

    def label(self, method: str) -> str:
        """Return the label of any method; the name of one that is none here."""
        return (self.known_labels | self.labels).get(method, method)

    def cited(self, method: str) -> str:
        """Return the label of a method with who describes it, where its recipe says so."""
        found = self.method(method)
        label, citation = self.label(method), found and found.citation
        return f"{label} ({citation})" if citation else label

    @property
    def main_metrics(self) -> dict[str, str]:
        """The main metric of each task, by name, in the study's order."""
        return {task.name: task.metric for task in self.tasks}
