"""Trials of a study's tuning: the same values for every method, on rows held out for choosing."""

from dataclasses import replace
from pathlib import Path

from peft_study.files import read_record
from peft_study.resolver import Resolver
from peft_study.run_config import CellConfig, Hyperparameters
from peft_study.stage_configs import Start, TrialConfig, TrialRows, TuneConfig, VariantCell

ROWS, RUNS, INTERMEDIATE = "data/apart/trials", "runs/trials", "data/intermediate"
TUNED = Path("tuned")
Values = dict[str, int | float]


def resolve_trials(study: Resolver) -> TuneConfig:
    """Return the trials of every method on every task: none where nothing is tuned."""
    params, trials = study.study, list[TrialConfig]()
    starts, rows = dict[str, Start](), dict[str, TrialRows]()
    for method in params.trained if params.tune.grid else ():
        for task in params.tasks_of(method):
            cell, of = study.cell(method, task), replace(study.rows(task), seeds=())
            rows[f"{ROWS}/{task}"] = TrialRows(of, params.tune.rows)
            first = study.start(method) if cell.starts else None
            if first:
                starts[f"{RUNS}/init/{method}"] = Start(first, INTERMEDIATE)
            for number, values in enumerate(params.tune.trials(cell.run.train.learning_rate)):
                config = replace(tuned(cell, values), seeds=tuple(params.tune.seeds))
                start = f"{RUNS}/init/{method}/start" if first else None
                tried = VariantCell(config, f"{ROWS}/{task}", start, config.run.train.report)
                trials.append(TrialConfig(values, f"{method}/{task}/{number}", tried))
    return TuneConfig(tuple(params.methods), tuple(trials), starts, rows)


def chosen_for(method: str) -> dict[str, Values]:
    """Return what tuning has chosen for a method, by task; nothing where it was not tuned."""
    return read_record(TUNED / f"{method}.json", dict[str, Values])


def tuned(cell: CellConfig, values: Values) -> CellConfig:
    """Return a cell with other values of hyperparameters."""
    train = Hyperparameters(**vars(cell.run.train) | values)
    return replace(cell, run=replace(cell.run, train=train))
