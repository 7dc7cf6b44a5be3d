"""From the study's parameters to one small file per stage: what that stage's result depends on.

DVC compares these files, so a changed parameter reruns the stages whose file it changes, and no
other. Everything that can be known to be wrong before training is found here.
"""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from peft_study.checks import check_against_model, check_device, check_recipes
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
from peft_study.files import write_json
from peft_study.findings.published import check_published
from peft_study.methods import KINDS, METHODS
from peft_study.records import Record
from peft_study.records.study import (
    DataInfo,
    InitInfo,
    MethodInfo,
    ModelInfo,
    StudyInfo,
    SweepInfo,
    TaskInfo,
)
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
    CertifyConfig,
    InitConfig,
    ParityConfig,
    PrepareConfig,
    PrepareConfigs,
    ProfileConfig,
    ProfiledTask,
)
from peft_study.study import OnlyParams, Study, TaskParams

# The libraries whose versions can change what a stage writes.
DATA_PACKAGES = ("datasets", "pyarrow", "tokenizers", "transformers")
TRAINING_PACKAGES = (
    *("accelerate", "numpy", "pandas", "pyarrow"),
    *("safetensors", "scikit-learn", "scipy", "torch", "transformers"),
)
ALL_PACKAGES = (*TRAINING_PACKAGES, *(name for row in METHODS.values() for name in row.packages))
LOCK = Path("requirements.lock")


def configure(study: Study) -> dict[str, object]:
    """Resolve a study into its stages' records, by file below `configs/`, without suffix.

    Raises StudyError if the model cannot be loaded or does not allow what is asked of it, the
    device is not there, or a library is installed in another version than the pinned one.
    """
    check_against_model(study)
    check_device(study)
    check_recipes(study)
    name, revision = study.model.name, study.model.revision
    # A hub model's revision is a hash of its files already.
    digest = None if is_hub_id(name) else model_digest(model_folder(name, revision))
    names = architecture(model_config(name, revision)["model_type"])
    return resolve(study, Encoder(name, revision, digest, names))


def resolve(study: Study, encoder: Encoder) -> dict[str, object]:
    """Return what `configure` returns of a checked study, without a look at the encoder's files.

    Raises StudyError if data are not there, or a library is installed in another version than the
    pinned one.
    """
    rows = (*METHODS.values(), *KINDS.values())
    packages = {row.packages: pinned(TRAINING_PACKAGES + row.packages) for row in rows}
    resolver = _Resolver(study, encoder, packages)
    prepared, started = resolver.preparation(), resolver.intermediate()
    cells = {method: resolver.training(method, prepared.elsewhere) for method in study.methods}
    trained = {method: cells[method] for method in study.trained}
    return {
        "prepare": prepared,
        "certify": CertifyConfig.of(encoder, trained, started, pinned(ALL_PACKAGES)),
        "mnli_init": started,
        "sweep": resolver.sweep(),
        "profile": resolver.profile(prepared),
        "parity": ParityConfig(encoder, pinned(ALL_PACKAGES)),
        "report": _report(study),
        **{f"train/{method}": of for method, of in cells.items()},
    }


def write_configs(study: Study, directory: Path) -> int:
    """Write `configure(study)` below `directory`, and nothing else; return the number of files."""
    configs = {directory / f"{name}.json": config for name, config in configure(study).items()}
    for stale in set(directory.rglob("*.json")) - set(configs):
        stale.unlink()
    for path, config in configs.items():
        write_json(path, config)
    return len(configs)


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


def locate(study: Study, name: str, task: TaskParams) -> dict[str, object]:
    """Return what decides the rows of a task. Raises StudyError as its source's `locate`."""
    files = task.files.model_dump() if task.files else None
    source, definition = load_source(study.data.source), study.task_definition(name, task)
    return source.locate(name, definition, study.data.folder, files)


class _Resolver(Record):
    """Resolves the runs of a study; `packages` are the versions of all that a run needs.

    They are known by what its method's row of the table names besides the training's own.
    """

    study: Study
    encoder: Encoder
    packages: dict[tuple[str, ...], dict[str, str]]

    def preparation(self) -> PrepareConfigs:
        study, init, starters = self.study, self.study.mnli_init, self.study.starters
        tasks = {
            n: self._prepare(f"tasks.{n}", n, task, self._drawn_for(n))
            for n, task in study.tasks.items()
        }
        intermediate = self._prepare("mnli_init", init.task, init) if starters else None
        return PrepareConfigs(tasks, intermediate, tuple(starters), self._elsewhere())

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
        data = self.study.data
        return PrepareConfig(
            key=key,
            task=name,
            definition=self.study.task_definition(name, task),
            source=data.source,
            location=locate(self.study, name, task),
            split_seed=data.split_seed,
            train_rows=task.train_rows,
            validation_rows=task.validation_rows,
            encoder=self.encoder,
            packages=pinned(DATA_PACKAGES),
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
        study, cells = self.study, {}
        for name, task in study.tasks_of(method).items():
            starts = name in study.starters and method in study.trained
            kept = starts and study.mnli_init.head == "kept"
            run = replace(self._run(method, name, task), keeps_head=kept)
            if method in elsewhere:
                run = replace(run, settings=elsewhere[method][name])
            cells[name] = CellConfig(run, tuple(study.seeds_of(method)), starts)
        return cells

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

    def sweep(self) -> dict[str, CellConfig]:
        sweep, cells = self.study.sweep, {}
        for rank, weights in sweep.cells:
            run = self._run("lora", sweep.task, self.study.tasks[sweep.task])
            alpha = float(rank) if sweep.alpha == "rank" else sweep.alpha
            swept = {"r": rank, "alpha": alpha, "targets": tuple(weights.split("+"))}
            run = replace(run, settings=LoraSettings(**vars(run.settings) | swept))
            cells[f"{weights}-r{rank}"] = CellConfig(run, tuple(self.study.seeds))
        return cells

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


def _report(study: Study) -> StudyInfo:
    """Return what the findings say of the study: everything but how its runs are run.

    Raises StudyError if `analysis.published` names a table that is not known.
    """
    if problems := check_published(study.analysis.published):
        raise StudyError(f"params.yaml: analysis.{problems[0]}")
    init, sweep, analysis = study.mnli_init, study.sweep, study.analysis
    weights = tuple(tuple(names.split("+")) for names in sweep.weights)
    defined = {name: study.task_definition(name, task) for name, task in study.tasks.items()}
    return StudyInfo(
        study=study.study,
        rehearsal=study.rehearsal,
        model=ModelInfo(**dict(study.model)),
        data=DataInfo(**dict(study.data)),
        seeds=tuple(study.seeds),
        methods=tuple(
            _method(study, name, place)
            for place, name in enumerate((*METHODS, *study.recipes))
            if name in study.methods
        ),
        tasks=tuple(
            TaskInfo(name, task.metrics[0], task.labels, study.tasks[name].max_length)
            for name, task in defined.items()
        ),
        report=study.train.report,
        mnli_init=InitInfo(init.mode, init.task, tuple(study.starters)),
        sweep=SweepInfo(sweep.task, tuple(sweep.ranks), weights),
        equivalence_margin=analysis.equivalence_margin,
        iso_margin=analysis.iso_margin,
        published=tuple(analysis.published),
        params=study.model_dump(mode="json", exclude={"runner", "rehearsal"}),
        packages=pinned(ALL_PACKAGES),
        known_labels={name: row.label for name, row in METHODS.items()},
    )


def _method(study: Study, name: str, place: int) -> MethodInfo:
    """Describe a method, at its `place` in the table of methods, after which recipes come."""
    declared, own = study.method(name), study.only.get(name, OnlyParams())
    row = declared.row
    return MethodInfo(
        name=name,
        label=row.label,
        family=row.family,
        computes=_computes(study, name),
        place=place,
        exported=row.exported,
        settings=vars(declared.settings),
        tasks=tuple(own.tasks) if own.tasks else None,
        seeds=tuple(own.seeds) if own.seeds else None,
        citation=declared.citation,
        published=declared.published,
        kind=row.module,
    )


def _computes(study: Study, name: str) -> str:
    """Name what a method computes: a recipe that says nothing new is an implementation of it."""

    def said(method: str) -> object:
        trained = [study.hyperparameters(method, task) for task in study.tasks.values()]
        return study.method(method).settings, trained

    order = [method for method in (*METHODS, *study.recipes) if method in study.methods]
    first = name if name in METHODS else next(m for m in order if said(m) == said(name))
    return METHODS[first].family if first in METHODS else first
