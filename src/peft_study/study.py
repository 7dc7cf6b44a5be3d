"""The study's parameters: typed, checked, and read from `params.yaml` here and nowhere else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from peft_study.data.tasks import TASKS, Task, classification_metrics
from peft_study.data.texts import canonical
from peft_study.encoders.architectures import Weight
from peft_study.errors import StudyError, nearest
from peft_study.grids import LedgerParams, Seed, SweepParams, TuneParams, changed, repeated
from peft_study.grids import problems as grid_problems
from peft_study.methods import METHODS
from peft_study.mistakes import REVISION, STUDY, explain
from peft_study.own_files import FilesParams, Name
from peft_study.recipes import (
    AdapterHParams,
    Block,
    Blocks,
    Declared,
    FullFtParams,
    LoraParams,
    Overrides,
    RecipeParams,
    declare,
    is_trained,
)
from peft_study.recipes import problems as recipe_problems
from peft_study.run_config import Device, Hyperparameters, Precision, Schedule

LONGEST_TASK = 100  # letters; it is part of names of files, of which systems allow 255 bytes
MaxLength = Annotated[int, Field(ge=8, le=512)]


class ModelParams(Block):
    """`model`: the pretrained encoder."""

    name: Name
    revision: Annotated[str, Field(pattern=REVISION)] | None = None
    max_length: MaxLength


class DataParams(Block):
    """`data`: where rows come from and how they are split."""

    source: Literal["opinions", "files", "hub"]
    folder: Name | None = None
    split_seed: Seed
    resample: Literal["none", "per_seed"] = "none"


class TrainParams(Block):
    """`train`: what all methods share unless a method or task overrides it."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    gradient_accumulation_steps: Annotated[int, Field(ge=1)]
    schedule: Schedule
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    adam_beta2: Annotated[float, Field(gt=0, lt=1)]
    adam_epsilon: Annotated[float, Field(gt=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    evaluations_per_epoch: Annotated[int, Field(ge=1)]
    head: Literal["trained", "frozen"]
    report: Literal["best", "last"]
    device: Device
    precision: Precision


class TaskParams(Overrides):
    """`tasks.<name>`: where its rows are, how many of them, and hyperparameters of its own.

    A method's block here overrides them for that method. Recipes have theirs too, in the keys
    beyond those below: `_cross_checks` knows their names.
    """

    model_config = ConfigDict(extra="allow")

    files: FilesParams | None = None
    train_rows: Annotated[int, Field(ge=2)] | None = None
    validation_rows: Annotated[int, Field(ge=2)] | None = None
    max_length: MaxLength | None = None
    lora: Overrides = Overrides()
    adapter_h: Overrides = Overrides()
    full_ft: Overrides = Overrides()

    def own(self, name: str) -> Overrides:
        """Return what is said here for a method, built in or a recipe."""
        return Overrides.model_validate(getattr(self, name, {}))


class IntermediateParams(TaskParams):
    """`mnli_init`: the intermediate task, MNLI in Hu et al. 2021, section 5.1 and appendix D.1.

    `head` is about the tasks that start from it. Whether the intermediate run trains its own head
    is said in `train`, in a method's block, or in that block here.
    """

    mode: Literal["per_method", "full_ft", "none"]
    task: str
    tasks: list[str]  # those that start from its weights
    head: Literal["fresh", "kept"]  # type: ignore[assignment]
    seed: Seed


class OnlyParams(Block):
    """`only.<method>`: tasks and seeds of a method's own, instead of the study's."""

    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None


class ProfileParams(Block):
    """`profile`: what to measure the costs of, in recipes of its own; no rounds: nothing.

    So no cost is measured again because a rank under comparison changed. LoRA has `ranks` (PEFT's
    and loralib's the first) on `targets`, AdapterH `bottleneck`; the rest is the study's.
    """

    tasks: Annotated[list[str], Field(min_length=1)]
    ranks: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    targets: Annotated[list[Weight], Field(min_length=1)]
    bottleneck: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=0)]
    assumed_watts: Annotated[float, Field(gt=0)] | None = None


class AnalysisParams(Block):
    """`analysis`: how findings are drawn from the runs."""

    iso_margin: Annotated[float, Field(ge=0, lt=1)]
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)]
    published: list[Name]


class RayParams(Block):
    """`runner.ray`: the cluster, and what a run takes of it."""

    address: Name | None = None
    num_cpus: Annotated[float, Field(gt=0)]
    num_gpus: Annotated[float, Field(ge=0)]
    memory_gigabytes: Annotated[float, Field(gt=0)]


class RunnerParams(Block):
    """`runner`: how runs are spread over machines, and what is kept of them; changes no result."""

    backend: Literal["local", "ray"]
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    store_gigabytes: Annotated[float, Field(ge=0)]
    ray: RayParams


class Study(Block):
    """A whole study, as `params.yaml` describes it."""

    study: Annotated[str, Field(pattern=STUDY)]
    rehearsal: bool = False  # true only where `make rehearse` wrote it: nothing there is a result
    model: ModelParams
    data: DataParams
    seeds: Annotated[list[Seed], Field(min_length=1)]
    methods: list[str]
    only: Annotated[dict[str, OnlyParams], Field(default_factory=dict)]
    tasks: Annotated[dict[str, TaskParams], Field(min_length=1)]
    mnli_init: IntermediateParams
    sweep: SweepParams
    ledger: Annotated[LedgerParams, Field(default={}, validate_default=True)]
    tune: Annotated[TuneParams, Field(default={}, validate_default=True)]
    profile: ProfileParams
    train: TrainParams
    lora: LoraParams
    adapter_h: AdapterHParams
    full_ft: FullFtParams
    recipes: Annotated[dict[str, RecipeParams], Field(default_factory=dict)]
    analysis: AnalysisParams
    runner: RunnerParams

    @property
    def starters(self) -> list[str]:
        """The tasks that start from the intermediate task's weights."""
        return [] if self.mnli_init.mode == "none" or not self.trained else self.mnli_init.tasks

    @property
    def trained(self) -> list[str]:
        """The methods that are trained here: all but the predictions that others made."""
        return [name for name in self.methods if is_trained(name, self.recipes)]

    def tasks_of(self, method: str) -> dict[str, TaskParams]:
        """Return the tasks that `method` is trained on, by name: its own, or the study's."""
        own = self.only.get(method, OnlyParams()).tasks
        return {name: task for name, task in self.tasks.items() if own is None or name in own}

    def seeds_of(self, method: str) -> list[int]:
        """Return the seeds that `method` is trained with: its own, or the study's."""
        return self.only.get(method, OnlyParams()).seeds or self.seeds

    @property
    def ledger_cells(self) -> list[tuple[str, str]]:
        """The methods and tasks whose settings the ledger changes, if it changes any.

        LoRA may be varied where the study has a sweep of it alone.
        """
        ledger = self.ledger
        return [
            (method, task)
            for method in (ledger.methods or self.trained) * bool(ledger.settings)
            for task in self.tasks_of(method)
            if task in (ledger.tasks or self.tasks)
        ]

    def varied(self, setting: Mapping[str, object], origin: str) -> "Study":
        """Return the study with a setting changed, without what it varies itself.

        Raises StudyError, whose lines begin with `origin`, if the parameters are then wrong.
        """
        values = self.model_dump(exclude_unset=True, exclude={"ledger", "tune"})
        values["sweep"] |= {"ranks": [], "weights": []}
        # A sweep's study may have no method of its own.
        values["methods"] = self.methods or ["lora"]
        if problems := list(changed(values, setting)):
            raise StudyError("\nerror: ".join(f"{origin}.{problem}" for problem in problems))
        return check_study(values, origin)

    def task_definition(self, name: str, params: TaskParams) -> Task:
        """Return the task's row of the table, or what `files` says of a task of one's own."""
        known, files = TASKS.get(name), params.files
        if files is None:
            return TASKS[name]
        texts = tuple(map(str, files.texts))
        labels = tuple(files.labels) if files.labels else known.labels if known else None
        if known and len(known.labels or ()) == len(labels or ()):
            return replace(known, texts=texts, labels=labels, parts=())
        scored = classification_metrics(len(labels)) if labels else ("pearson", "spearman")
        return Task(texts, labels, scored)

    def method(self, name: str) -> Declared:
        """Return a method, built in or a recipe, as the parameters declare it."""
        blocks: Blocks = {"lora": self.lora, "adapter_h": self.adapter_h, "full_ft": self.full_ft}
        return declare(name, self.recipes, blocks)

    def hyperparameters(self, method: str, task: TaskParams) -> Hyperparameters:
        """Resolve how `method` is trained on `task`; the most specific setting wins.

        `tasks.<task>.<method>`, then `tasks.<task>`, then `<method>`, then `train`; of a recipe
        what it is like comes before itself.
        """
        declared = self.method(method)
        # What `mnli_init.head` says is not how the intermediate run is trained.
        other = {"head"} if isinstance(task, IntermediateParams) else set()
        resolved = self.train.model_dump() | declared.training
        resolved |= task.model_dump(include={*Overrides.model_fields} - other, exclude_none=True)
        for name in declared.names:
            resolved |= task.own(name).model_dump(exclude_none=True)
        return Hyperparameters(**resolved)


def load_study(path: Path = Path("params.yaml")) -> Study:
    """Read and check the parameters of a study.

    Raises StudyError, with a line for each mistake: the key, the value and what is allowed; or as
    `read_yaml`.
    """
    return check_study(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """Read a file as YAML 1.2, in which `no` and `on` are words.

    Raises StudyError, with the line, if it is not there or no valid YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file; run from the top of the repository") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError(f"{path}{line}: not valid YAML: {problem.splitlines()[0]}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None


def check_study(values: object, origin: str = "params.yaml") -> Study:
    """Check already parsed parameters; `origin` names them in messages. Raises as `load_study`."""
    if not isinstance(values, dict):
        raise StudyError(f"{origin}: must hold a mapping of parameters, got {values!r}")
    try:
        study = Study.model_validate(values)
        problems = _cross_checks(study)
    except ValidationError as error:
        problems = explain(error, Study)
    if problems:
        raise StudyError("\nerror: ".join(f"{origin}: {problem}" for problem in problems))
    for name, setting in study.ledger.settings.items():
        study.varied(setting, f"{origin}: ledger.settings.{name}")
    return study


def _cross_checks(study: Study) -> list[str]:
    init, data, train = study.mnli_init, study.data, study.train
    declared = {*METHODS, *study.recipes}
    taken = {*TaskParams.model_fields, *IntermediateParams.model_fields, *Study.model_fields}
    problems = recipe_problems(study.recipes, taken)
    tasks = [(f"tasks.{name}", name, task) for name, task in study.tasks.items()]
    tasks.append(("mnli_init", init.task, init))
    for key, names, known in (
        ("methods", study.methods, declared),
        ("tasks", [n for n, task in study.tasks.items() if not task.files], set(TASKS)),
        ("mnli_init.task", [] if init.files else [init.task], set(TASKS)),
        ("mnli_init.tasks", study.starters, set(study.tasks)),
        ("profile.tasks", study.profile.tasks, set(study.tasks)),
        ("only", list(study.only), declared),
        *(
            (f"only.{m}.tasks", own.tasks or [], set(study.tasks))
            for m, own in study.only.items()
            if m in study.methods
        ),
    ):
        problems += [f"{key}: got '{n}'; {nearest(n, known)}" for n in names if n not in known]
    lists: tuple[tuple[str, Sequence[object]], ...] = (
        ("seeds", study.seeds),
        ("methods", study.methods),
        ("lora.targets", study.lora.targets),
        ("mnli_init.tasks", init.tasks),
        ("profile.tasks", study.profile.tasks),
        ("profile.ranks", study.profile.ranks),
        ("profile.targets", study.profile.targets),
        *((f"only.{m}.tasks", own.tasks or []) for m, own in study.only.items()),
        *((f"only.{m}.seeds", own.seeds or []) for m, own in study.only.items()),
        *(
            (f"{key}.files.{part}", list(map(canonical, getattr(task.files, part) or [])))
            for key, _, task in tasks
            for part in (("columns", "labels", "texts") if task.files else ())
        ),
    )
    for key, items in lists:
        problems += repeated(key, items)
    problems += grid_problems(study)
    for key, _, task in tasks:
        known = {*type(task).model_fields, *study.recipes}
        for name in task.model_extra or {}:
            if name not in study.recipes:
                problems.append(f"{key}.{name}: unknown key; {nearest(name, known)}")
                continue
            if not is_trained(name, study.recipes):
                problems.append(f"{key}.{name}: it is not trained here; take it out")
                continue
            try:
                task.own(name)
            except ValidationError as error:
                problems += [f"{key}.{name}.{line}" for line in explain(error, Overrides)]
    if not (study.methods or study.sweep.cells):
        problems.append("methods: got []; must be at least 1 item(s) long unless there is a sweep")
    if study.profile.rounds == 1:
        problems.append(
            "profile.rounds: got 1; must be 0, or at least 2, so that there is a spread"
        )
    if init.task in study.starters:
        problems.append(f"mnli_init.tasks: got '{init.task}', which is the intermediate task")
    for key, name, task in tasks:
        if not re.fullmatch(f"[a-z0-9_]{{1,{LONGEST_TASK}}}", name):
            allowed = f"must be lower-case letters, digits and '_', at most {LONGEST_TASK}"
            problems.append(f"{key}: got '{name}'; {allowed}")
        elif task.files and data.source != "files":
            problems.append(f"{key}.files: data.source is '{data.source}'; must be 'files'")
        problems += [
            f"{key}.files.{line}" for line in (task.files.problems() if task.files else ())
        ]
    if train.precision == "tf32" and train.device != "cuda":
        problems.append(
            f"train.precision: got 'tf32', which train.device '{train.device}' does not have; "
            "must be float32 or bfloat16"
        )
    if data.source == "opinions" and data.folder:
        problems.append(
            f"data.folder: got '{data.folder}'; must be empty for data.source 'opinions'"
        )
    return problems
