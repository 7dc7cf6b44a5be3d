"""The study's parameters: typed, checked, and read from `params.yaml` here and nowhere else."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from peft_study.data.tasks import TASKS, Task
from peft_study.errors import StudyError, nearest

# Which block of the parameters a method reads: the three LoRA implementations share one.
PARAMETER_BLOCKS = {
    "lora": "lora",
    "peft_lora": "lora",
    "loralib_lora": "lora",
    "adapter_h": "adapter_h",
    "full_ft": "full_ft",
}

Weight = Literal["query", "key", "value", "output"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
REVISION = "^[0-9a-f]{40}$"
Name = Annotated[str, Field(min_length=1, max_length=200)]
MaxLength = Annotated[int, Field(ge=8, le=512)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Overrides(_Block):
    """Training hyperparameters that a method, a task, or a method on a task may set for itself."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    head: Literal["trained", "frozen"] | None = None


class ModelParams(_Block):
    """`model`: the pretrained encoder."""

    name: Name
    revision: Annotated[str, Field(pattern=REVISION)] | None = None
    max_length: MaxLength


class DataParams(_Block):
    """`data`: where rows come from and how they are split."""

    source: Literal["opinions", "files", "hub"]
    folder: Name | None = None
    split_seed: Seed


class FilesParams(_Block):
    """`tasks.<name>.files`: a task in files of one's own, and what its columns are called."""

    train: Name
    validation: Name
    texts: Annotated[list[Name], Field(min_length=1, max_length=2)]
    label: Name
    labels: Annotated[list[Name], Field(min_length=2)] | None = None


class LoraParams(Overrides):
    """`lora`: low-rank adaptation (Hu et al. 2021, section 4.1), for all three implementations."""

    r: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[list[Weight], Field(min_length=1)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class AdapterHParams(Overrides):
    """`adapter_h`: bottleneck adapters after attention and after the FFN (Houlsby et al. 2019)."""

    bottleneck: Annotated[int, Field(ge=1)]
    activation: Literal["relu", "gelu", "swish", "tanh"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class FullFtParams(Overrides):
    """`full_ft`: every parameter of the model is trained."""

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    save_weights: bool


class TrainParams(_Block):
    """`train`: what all methods share unless a method or task overrides it."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    gradient_accumulation_steps: Annotated[int, Field(ge=1)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    adam_beta2: Annotated[float, Field(gt=0, lt=1)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    evaluations_per_epoch: Annotated[int, Field(ge=1)]
    head: Literal["trained", "frozen"]
    report: Literal["best", "last"]
    device: Literal["cpu", "cuda", "mps"]
    precision: Literal["float32", "tf32", "bfloat16"]


class TaskParams(Overrides):
    """`tasks.<name>`: where its rows are, how many of them, and hyperparameters of its own."""

    files: FilesParams | None = None
    train_rows: Annotated[int, Field(ge=2)] | None = None
    validation_rows: Annotated[int, Field(ge=2)] | None = None
    max_length: MaxLength | None = None
    lora: Overrides = Overrides()
    adapter_h: Overrides = Overrides()
    full_ft: Overrides = Overrides()


class IntermediateParams(TaskParams):
    """`mnli_init`: the intermediate task, and the tasks that start from its weights.

    Source: Hu et al. 2021, section 5.1 and appendix D.1, where MNLI plays this part.
    """

    mode: Literal["per_method", "full_ft", "none"]
    task: str
    tasks: list[str]
    seed: Seed


class SweepParams(_Block):
    """`sweep`: our LoRA at every rank with every set of weights, on one task; no ranks: no sweep.

    Source: Hu et al. 2021, section 7.2 and table 6.
    """

    task: str
    alpha: Annotated[float, Field(gt=0)] | Literal["rank"]
    ranks: list[Annotated[int, Field(ge=1)]]
    weights: list[str]

    @property
    def cells(self) -> list[tuple[int, str]]:
        """Every rank with every set of weights, such as (8, "query+value")."""
        return [(rank, weights) for rank in self.ranks for weights in self.weights]


class ProfileParams(_Block):
    """`profile`: on which task to measure time, memory, latency and energy; no rounds: on none."""

    task: str | None = None
    ranks: list[Annotated[int, Field(ge=1)]]
    rounds: Annotated[int, Field(ge=0)]
    assumed_watts: Annotated[float, Field(gt=0)] | None = None


class AnalysisParams(_Block):
    """`analysis`: how findings are drawn from the runs."""

    iso_margin: Annotated[float, Field(ge=0, lt=1)]
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)]
    published: list[Name]


class RayParams(_Block):
    """`runner.ray`: the cluster, and what a run takes of it."""

    address: Name | None = None
    num_cpus: Annotated[float, Field(gt=0)]
    num_gpus: Annotated[float, Field(ge=0)]
    memory_gigabytes: Annotated[float, Field(gt=0)]


class RunnerParams(_Block):
    """`runner`: how runs are spread over machines, and what is kept of them; changes no result."""

    backend: Literal["local", "ray"]
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    store_gigabytes: Annotated[float, Field(ge=0)]
    ray: RayParams


class Study(_Block):
    """A whole study, as `params.yaml` describes it."""

    study: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    model: ModelParams
    data: DataParams
    seeds: Annotated[list[Seed], Field(min_length=1)]
    methods: list[str]
    tasks: Annotated[dict[str, TaskParams], Field(min_length=1)]
    mnli_init: IntermediateParams
    sweep: SweepParams
    profile: ProfileParams
    train: TrainParams
    lora: LoraParams
    adapter_h: AdapterHParams
    full_ft: FullFtParams
    analysis: AnalysisParams
    runner: RunnerParams

    @property
    def starters(self) -> list[str]:
        """The tasks that start from the intermediate task's weights."""
        return [] if self.mnli_init.mode == "none" or not self.methods else self.mnli_init.tasks

    @property
    def main_metrics(self) -> dict[str, str]:
        """The metric of each task that decides which evaluation is best."""
        return {n: self.task_definition(n, task).metrics[0] for n, task in self.tasks.items()}

    def task_definition(self, name: str, params: TaskParams) -> Task:
        """Return the task's row of the table, or what `files` says of a task of one's own."""
        known, files = TASKS.get(name), params.files
        if files is None:
            return TASKS[name]
        labels = tuple(files.labels) if files.labels else known.labels if known else None
        metrics = ("accuracy",) if labels else ("pearson", "spearman")
        alike = known and len(known.labels or ()) == len(labels or ())
        return Task(
            texts=tuple(files.texts),
            labels=labels,
            metrics=known.metrics if known and alike else metrics,
            score_range=known.score_range if known and alike else None,
        )

    def method_params(self, method: str) -> LoraParams | AdapterHParams | FullFtParams:
        """Return the parameter block that `method` reads."""
        block: LoraParams | AdapterHParams | FullFtParams = getattr(self, PARAMETER_BLOCKS[method])
        return block

    def hyperparameters(self, method: str, task: TaskParams) -> dict[str, Any]:
        """Resolve the training hyperparameters of `method` on `task`.

        The most specific setting wins: `tasks.<task>.<method>`, then `tasks.<task>`, then
        `<method>`, then `train`.
        """
        resolved = self.train.model_dump()
        block = PARAMETER_BLOCKS[method]
        for layer in (self.method_params(method), task, getattr(task, block)):
            for name in Overrides.model_fields:
                if (value := getattr(layer, name)) is not None:
                    resolved[name] = value
        return resolved


def method_params_of(config: dict[str, Any]) -> LoraParams | AdapterHParams | FullFtParams:
    """Rebuild the parameter block of a resolved configuration (of `configs/train/`, say)."""
    block: Any = Study.model_fields[PARAMETER_BLOCKS[config["method"]]].annotation
    params: LoraParams | AdapterHParams | FullFtParams = block.model_validate(
        config["adapter"] | {"learning_rate": config["train"]["learning_rate"]}
    )
    return params


def load_study(path: Path = Path("params.yaml")) -> Study:
    """Read and check the parameters of a study.

    Raises:
        StudyError: with a line for each mistake, naming the key, the value and what is allowed.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
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
    return check_study(values, str(path))


def check_study(values: Any, origin: str = "params.yaml") -> Study:
    """Check already parsed parameters; `origin` names them in messages. Raises as `load_study`."""
    if not isinstance(values, dict):
        raise StudyError(f"{origin}: must hold a mapping of parameters, got {values!r}")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        by_key: dict[tuple[Any, ...], list[Any]] = {}
        for problem in error.errors():
            by_key.setdefault(_location(problem), []).append(problem)
        lines = [f"{origin}: {_explain(problems)}" for problems in by_key.values()]
        raise StudyError("\nerror: ".join(lines)) from None
    if problems := _cross_checks(study):
        raise StudyError("\nerror: ".join(f"{origin}: {problem}" for problem in problems))
    return study


def _cross_checks(study: Study) -> list[str]:
    init, problems = study.mnli_init, []
    for key, names, known in (
        ("methods", study.methods, set(PARAMETER_BLOCKS)),
        ("tasks", [n for n, task in study.tasks.items() if not task.files], set(TASKS)),
        ("mnli_init.task", [] if init.files else [init.task], set(TASKS)),
        ("mnli_init.tasks", study.starters, set(study.tasks)),
        ("sweep.task", [study.sweep.task] if study.sweep.cells else [], set(study.tasks)),
        ("profile.task", [study.profile.task] if study.profile.task else [], set(study.tasks)),
        *((f"sweep.weights.{w}", w.split("+"), set(get_args(Weight))) for w in study.sweep.weights),
    ):
        problems += [f"{key}: got '{n}'; {nearest(n, known)}" for n in names if n not in known]
    lists: tuple[tuple[str, list[Any]], ...] = (
        ("seeds", study.seeds),
        ("methods", study.methods),
        ("lora.targets", study.lora.targets),
        ("mnli_init.tasks", init.tasks),
        ("sweep.ranks", study.sweep.ranks),
        ("profile.ranks", study.profile.ranks),
        ("sweep.weights", ["+".join(sorted(w.split("+"))) for w in study.sweep.weights]),
        *((f"sweep.weights.{w}", w.split("+")) for w in study.sweep.weights),
    )
    mappings = [(f"tasks.{n}", t.files) for n, t in study.tasks.items()]
    for key, mapping in (*mappings, ("mnli_init", init.files)):
        if mapping:
            lists += ((f"{key}.files.labels", mapping.labels or []),)
            lists += ((f"{key}.files.texts", mapping.texts),)
    for key, items in lists:
        repeated = dict.fromkeys(item for item in items if items.count(item) > 1)
        problems += [f"{key}: {item!r} is repeated; name each once" for item in repeated]
    if not (study.methods or study.sweep.cells):
        problems.append("methods: got []; must be at least 1 item(s) long unless there is a sweep")
    if bool(study.sweep.ranks) != bool(study.sweep.weights):
        problems.append("sweep.ranks, sweep.weights: only one has items; name both, or neither")
    if init.task in study.starters:
        problems.append(f"mnli_init.tasks: got '{init.task}', which is the intermediate task")
    if study.sweep.cells and study.sweep.task in study.starters:
        problems.append(
            f"sweep.task: got '{study.sweep.task}', which mnli_init.tasks starts from an adapter "
            "of one rank and set of weights; a sweep starts from the encoder, so take it out there"
        )
    for key, name, task in (
        *((f"tasks.{name}", name, task) for name, task in study.tasks.items()),
        ("mnli_init", init.task, init),
    ):
        if not re.fullmatch("[a-z0-9_]+", name):
            problems.append(f"{key}: got '{name}'; must be lower-case letters, digits and '_'")
        elif task.files and study.data.source != "files":
            problems.append(f"{key}.files: data.source is '{study.data.source}'; must be 'files'")
    if study.train.precision == "tf32" and study.train.device != "cuda":
        problems.append(
            f"train.precision: got 'tf32', which train.device '{study.train.device}' does not "
            "have; must be float32 or bfloat16"
        )
    if study.data.source == "opinions" and study.data.folder:
        problems.append(
            f"data.folder: got '{study.data.folder}'; must be empty for data.source 'opinions'"
        )
    return problems


def _explain(problems: list[Any]) -> str:
    """Turn what pydantic found out about one key into `key: got value; must be what is allowed`."""
    first = problems[0]
    location = _location(first)
    key = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; {nearest(str(location[-1]), _known_keys(location[:-1]))}"
    if first["type"] == "missing":
        return f"{key}: is missing; add it"
    rules = dict.fromkeys(_rule(problem) for problem in problems)
    return f"{key}: got {first['input']!r}; must be {' or '.join(rules)}"


def _rule(problem: Any) -> str:
    context = problem.get("ctx", {})
    match problem["type"]:
        case "too_short":
            return f"at least {context['min_length']} item(s) long"
        case "string_too_short":
            return "not empty"
        case "string_too_long":
            return f"at most {context['max_length']} characters long"
        case "string_pattern_mismatch" if context["pattern"] == REVISION:
            return "a commit: 40 hexadecimal digits"
        case "string_pattern_mismatch":
            return "lower-case letters, digits, '-' and '_'"
        case "model_type" | "dict_type":
            return "a mapping of keys to values"
    return str(problem["msg"]).removeprefix("Input should be ")


def _location(problem: Any) -> tuple[Any, ...]:
    # The branches of a union add their own names to the path; they are no keys of the file.
    branches = ("constrained-", "literal[", "[key]")
    return tuple(part for part in problem["loc"] if not str(part).startswith(branches))


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: Any = Study
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            field: Any = model.model_fields[part].annotation
            field = next((kind for kind in get_args(field) if hasattr(kind, "model_fields")), field)
            model = TaskParams if part == "tasks" and model is Study else field
    return list(model.model_fields) if hasattr(model, "model_fields") else list(Study.model_fields)
