"""From the study's parameters to one small file per stage: what that stage's result depends on.

DVC compares these files, so a changed parameter reruns the stages whose file it changes, and no
other. Everything that can be known to be wrong before training is found here.
"""

from dataclasses import replace
from pathlib import Path

from peft_study.checks import check_against_model, check_device, check_recipes
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.findings.published import check_published
from peft_study.methods import METHODS
from peft_study.records.study import (
    DataInfo,
    InitInfo,
    LedgerInfo,
    MethodInfo,
    ModelInfo,
    StudyInfo,
    SweepInfo,
    TaskInfo,
    TuneInfo,
)
from peft_study.resolver import ALL_PACKAGES, Resolver, encoder_of, pinned
from peft_study.run_config import Encoder
from peft_study.stage_configs import CertifyConfig, ParityConfig
from peft_study.study import OnlyParams, Study
from peft_study.tuning import resolve_trials
from peft_study.variants import check_settings, resolve_variants


def configure(study: Study) -> dict[str, object]:
    """Resolve a study into its stages' records, by file below `configs/`, without suffix.

    Raises StudyError if the model cannot be loaded or does not allow what is asked of it, the
    device is not there, or a library is installed in another version than the pinned one.
    """
    check_against_model(study)
    check_device(study)
    check_recipes(study)
    check_settings(study)
    return resolve(study, encoder_of(study))


def resolve(study: Study, encoder: Encoder) -> dict[str, object]:
    """Return what `configure` returns of a checked study, without a look at the encoder's files.

    Raises StudyError if data are not there, or a library is installed in another version than the
    pinned one.
    """
    resolver = Resolver.of(study, encoder)
    prepared, started = resolver.preparation(), resolver.intermediate()
    cells = {method: resolver.training(method, prepared.elsewhere) for method in study.methods}
    trained = {method: cells[method] for method in study.trained}
    variants, apart = resolve_variants(resolver)
    trials = resolve_trials(resolver)
    return {
        "prepare": replace(prepared, apart=apart, trials=trials.rows),
        "certify": CertifyConfig.of(encoder, trained, started, pinned(ALL_PACKAGES)),
        "mnli_init": started,
        "variants": variants,
        "tune": trials,
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
        ledger=LedgerInfo(
            tuple(dict.fromkeys(method for method, _ in study.ledger_cells)),
            tuple(dict.fromkeys(task for _, task in study.ledger_cells)),
            {name: dict(setting) for name, setting in study.ledger.settings.items()},
        ),
        tune=_tune(study),
        equivalence_margin=analysis.equivalence_margin,
        iso_margin=analysis.iso_margin,
        published=tuple(analysis.published),
        params=study.model_dump(mode="json", exclude={"runner", "rehearsal"}),
        packages=pinned(ALL_PACKAGES),
        known_labels={name: row.label for name, row in METHODS.items()},
    )


def _tune(study: Study) -> TuneInfo:
    tune = study.tune
    grid = {key: tuple(values) for key, values in tune.grid.items()}
    return TuneInfo(grid, tune.factors, tuple(tune.seeds), tune.rows) if grid else TuneInfo()


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
