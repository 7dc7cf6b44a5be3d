"""From a study's parameters to the records of its runs, one at a time."""

from dataclasses import field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from peft_study.data import predictions
from peft_study.data.sources import load_source
from peft_study.encoders.architectures import architecture
from peft_study.encoders.pretrained import (
    is_hub_id,
    model_config,
    model_digest,
    model_folder,
)
from peft_study.errors import StudyError
from peft_study.files import as_json
from peft_study.methods import KINDS, METHODS
from peft_study.recipes import is_trained
from peft_study.records import Record
from peft_study.run_config import (
    AdapterHSettings,
    CellConfig,
    Encoder,
    LoraSettings,
    PredictionsSettings,
    RunConfig,
    Settings,
)
from peft_study.stage_configs import (
    InitConfig,
    PrepareConfig,
    PrepareConfigs,
    ProfileConfig,
    ProfiledTask,
)
from peft_study.study import Study, TaskParams

# The libraries whose versions can change what a stage writes.
DATA_PACKAGES = ("datasets", "pyarrow", "tokenizers", "transformers")
TRAINING_PACKAGES = (
    *("accelerate", "numpy", "pandas", "pyarrow"),
    *("safetensors", "scikit-learn", "scipy", "torch", "transformers"),
)
ALL_PACKAGES = (*TRAINING_PACKAGES, *(name for row in METHODS.values() for name in row.packages))
LOCK = Path("requirements.lock")


def pinned(packages: tuple[str, ...], lock: Path = LOCK) -> dict[str, str]:
    """Return the versions that `lock` pins for `packages`.

    Raises StudyError if one is not pinned, or another version of it, or none, is installed.
    """
    pins = dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    for name in packages:
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:
            installed = "none"
        if pins.get(name) != installed:
            found = f"{name} is pinned to {pins.get(name)}, but {installed} is installed"
            raise StudyError(f"{lock}: {found}; run 'make env'")
    return {name: pins[name] for name in packages}


def encoder_of(study: Study) -> Encoder:
    """Return the encoder of a study. Raises StudyError if its model cannot be loaded."""
    name, revision = study.model.name, study.model.revision
    # A hub model's revision is a hash of its files already.
    digest = None if is_hub_id(name) else model_digest(model_folder(name, revision))
    return Encoder(name, revision, digest, architecture(model_config(name, revision)["model_type"]))


def locate(study: Study, name: str, task: TaskParams) -> dict[str, object]:
    """Return what decides the rows of a task. Raises StudyError as its source's `locate`."""
    files = task.files.model_dump() if task.files else None
    source, definition = load_source(study.data.source), study.task_definition(name, task)
    return source.locate(name, definition, study.data.folder, files)


class Resolver(Record):
    """Resolves the runs of a study; `packages` are the versions of all that a run needs.

    They are known by what its method's row of the table names besides the training's own, and those
    of its rows by `DATA_PACKAGES`. `located` holds what decides rows, whose files are read for it:
    once, for all variants of a study too.
    """

    study: Study
    encoder: Encoder
    packages: dict[tuple[str, ...], dict[str, str]]
    located: dict[str, dict[str, object]] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study, encoder: Encoder) -> "Resolver":
        """Look up the versions. Raises StudyError as `pinned`."""
        rows = (*METHODS.values(), *KINDS.values())
        names = {row.packages: pinned(TRAINING_PACKAGES + row.packages) for row in rows}
        return cls(study, encoder, names | {DATA_PACKAGES: pinned(DATA_PACKAGES)})

    def preparation(self) -> PrepareConfigs:
        tasks, starters = {n: self.rows(n) for n in self.study.tasks}, tuple(self.study.starters)
        return PrepareConfigs(tasks, self.intermediate_rows(), starters, self._elsewhere())

    def rows(self, name: str) -> PrepareConfig:
        """Resolve the rows of a task."""
        return self._prepare(f"tasks.{name}", name, self.study.tasks[name], self._drawn_for(name))

    def intermediate_rows(self) -> PrepareConfig | None:
        """Resolve the rows of the intermediate task; None if no task starts from it."""
        init = self.study.mnli_init
        return self._prepare("mnli_init", init.task, init) if self.study.starters else None

    def _elsewhere(self) -> dict[str, dict[str, PredictionsSettings]]:
        study, found = self.study, {}
        for method in study.methods:
            if isinstance(settings := study.method(method).settings, PredictionsSettings):
                tasks = {n: study.task_definition(n, t) for n, t in study.tasks_of(method).items()}
                found[method] = predictions.locate(method, settings, tasks, study.seeds_of(method))
        return found

    def _drawn_for(self, task: str) -> tuple[int, ...]:
        """Return the seeds that have a draw of a task's rows: the study's, then methods' own."""
        study = self.study
        if study.data.resample == "none":
            return ()
        own = (study.seeds_of(m) for m in study.methods if task in study.tasks_of(m))
        return tuple(dict.fromkeys(chain(study.seeds, *own)))

    def _prepare(
        self, key: str, name: str, task: TaskParams, seeds: tuple[int, ...] = ()
    ) -> PrepareConfig:
        data, definition = self.study.data, self.study.task_definition(name, task)
        asked = as_json((data.source, data.folder, name, definition, task.files))
        if asked not in self.located:
            self.located[asked] = locate(self.study, name, task)
        return PrepareConfig(
            key=key,
            task=name,
            definition=definition,
            source=data.source,
            location=self.located[asked],
            split_seed=data.split_seed,
            train_rows=task.train_rows,
            validation_rows=task.validation_rows,
            encoder=self.encoder,
            packages=self.packages[DATA_PACKAGES],
            max_length=task.max_length or self.study.model.max_length,
            seeds=seeds,
        )

    def _run(self, method: str, name: str, task: TaskParams) -> RunConfig:
        declared = self.study.method(method)
        return RunConfig(
            method=method,
            module=declared.row.module,
            task=name,
            definition=self.study.task_definition(name, task),
            encoder=self.encoder,
            settings=declared.settings,
            train=self.study.hyperparameters(method, task),
            max_length=task.max_length or self.study.model.max_length,
            save_weights=declared.save_weights,
            packages=self.packages[declared.row.packages],
        )

    def training(
        self, method: str, elsewhere: dict[str, dict[str, PredictionsSettings]]
    ) -> dict[str, CellConfig]:
        cells = {name: self.cell(method, name) for name in self.study.tasks_of(method)}
        for name, settings in elsewhere.get(method, {}).items():
            run = replace(cells[name].run, settings=settings)
            cells[name] = replace(cells[name], run=run)
        return cells

    def cell(self, method: str, name: str) -> CellConfig:
        """Resolve the runs of a method on a task."""
        study = self.study
        starts = name in study.starters and is_trained(method, study.recipes)
        kept = starts and study.mnli_init.head == "kept"
        run = replace(self._run(method, name, study.tasks[name]), keeps_head=kept)
        return CellConfig(run, tuple(study.seeds_of(method)), starts)

    def intermediate(self) -> InitConfig:
        init, starters = self.study.mnli_init, set(self.study.starters)
        starts = {
            name: ("full_ft" if init.mode == "full_ft" else name)
            if name in self.study.trained and starters & set(self.study.tasks_of(name))
            else None
            for name in self.study.methods
        }
        cells = {}
        for name in filter(None, dict.fromkeys(starts.values())):
            run = replace(self._run(name, init.task, init), save_weights=True)
            cells[name] = CellConfig(run, (init.seed,))
        return InitConfig(cells, starts)

    def start(self, method: str) -> CellConfig | None:
        """Resolve the intermediate run from which a method's tasks start, if any does."""
        found = self.intermediate()
        name = found.starts.get(method)
        return found.cells[name] if name else None

    def profile(self, prepared: PrepareConfigs) -> ProfileConfig:
        """Resolve what is measured: the recipes that `profile` names, with the study's batches."""
        params = self.study.profile
        # Without the draws that seeds may have: another seed repeats no measurement.
        rows = {name: replace(task, seeds=()) for name, task in prepared.tasks.items()}
        return ProfileConfig(
            tasks=tuple(
                ProfiledTask(rows[name], self._measured(name))
                for name in (params.tasks if params.rounds else ())
            ),
            methods=(*METHODS, *self.study.recipes),
            rounds=params.rounds,
            reference="full_ft" if "full_ft" in self.study.methods else "lora",
            assumed_watts=params.assumed_watts,
            packages=pinned(("psutil", "zeus")),
        )

    def _measured(self, name: str) -> dict[str, RunConfig]:
        """Resolve the cells of a profile on one task, by method and, of further ranks, by these.

        What makes a step neither longer nor shorter is the same in every profile, which is then not
        repeated for it: the steps are as many as are asked for, and leave the weights nearly alone.
        """
        params = self.study.profile
        cells: dict[str, RunConfig] = {}
        for method in dict.fromkeys((*self.study.trained, "lora")):
            run = self._run(method, name, self.study.tasks[name])
            recipes: dict[str, Settings] = {method: run.settings}
            match run.settings:
                case _ if method in self.study.recipes:
                    pass  # measured as it is
                case AdapterHSettings() as adapter:
                    recipes[method] = replace(adapter, bottleneck=params.bottleneck)
                case LoraSettings(dropout=dropout):
                    for rank in params.ranks if method == "lora" else params.ranks[:1]:
                        key = method if rank == params.ranks[0] else f"{method} r={rank}"
                        recipes[key] = LoraSettings(rank, 16.0, dropout, tuple(params.targets))
            steps = replace(run.train, epochs=10**6, evaluations_per_epoch=1, report="last")
            free = replace(steps, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.01)
            free = replace(free, max_grad_norm=1.0, schedule="linear", warmup_ratio=0.0)
            train = replace(free, learning_rate=1e-6)
            for key, settings in recipes.items():
                cells[key] = replace(run, settings=settings, train=train, save_weights=False)
        return cells
