"""From the histories of all runs: stability over seeds, and the cost of reaching equal scores."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from peft_study.findings.statistics import spread
from peft_study.records.costs import EnergySource, IsoAccuracy, Profile
from peft_study.records.scores import CurvePoint, EpochSeconds, EqualScoreRun, StabilityPoint
from peft_study.records.study import StudyInfo

KEYS = ["task", "method"]


def learning_curves(study: StudyInfo, folder: Path) -> pd.DataFrame:
    """Return the histories of all runs, as the stages `evaluate` left them, in the study's order.

    `folder` has a table per method. A cell without a history is left out.
    """
    paths = [folder / f"{method}.csv" for method in study.labels]
    tables = [read_histories(path) for path in paths if path.is_file()]
    if not tables:
        return read_histories(folder / "sweep.csv")[:0]
    found = pd.concat(tables, ignore_index=True)
    mine = [found[found["task"] == task] for task in study.main_metrics]
    return pd.concat(mine, ignore_index=True)


def read_histories(path: Path) -> pd.DataFrame:
    """Read a table of histories, every number as it was written."""
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False)


def over_seeds(curves: pd.DataFrame, swept: bool = False) -> list[CurvePoint]:
    """Return the learning curve of every cell: a row per evaluation.

    With `swept`, cells of one method differ by weights and rank, which the rows then name.
    """
    keys = [*KEYS, *(["weights", "rank"] if swept else []), "metric", "step", "epoch"]
    cells = curves.groupby(keys, sort=False)
    scores = cells["score"].agg(n="size", mean="mean", low="min", high="max")
    found = scores.join(cells[["train_loss", "validation_loss"]].mean())
    rows = found.reset_index().to_dict("records")
    for row in rows if swept else ():
        row["weights"] = tuple(row["weights"].split("+"))
    return [CurvePoint(**{str(key): value for key, value in row.items()}) for row in rows]


def stability(curves: pd.DataFrame) -> list[StabilityPoint]:
    """Return how much the seeds of each cell differ at every evaluation.

    Source: section III.C of Liu et al., who compare LoRA with adapters by it.
    """
    scores = curves.groupby([*KEYS, "step", "epoch"], sort=False)["score"].agg(list)
    return [
        StabilityPoint(task, method, step, epoch, len(found), *spread(found))
        for task, method, step, epoch, found in scores.reset_index().itertuples(index=False)
    ]


def epoch_seconds(curves: pd.DataFrame) -> Iterator[EpochSeconds]:
    """Yield how long an epoch of each cell took, in the runs' own seconds of training."""
    ends = curves[curves["epoch"] % 1 == 0]
    before = ends.groupby([*KEYS, "seed"], sort=False)["train_seconds"].shift(fill_value=0.0)
    lasted = (ends["train_seconds"] - before).groupby([ends[key] for key in KEYS], sort=False)
    for task, method, seconds in lasted.agg(list).reset_index().itertuples(index=False):
        yield EpochSeconds(task, method, len(seconds), *spread(seconds)[:2])


def iso_accuracy(curves: pd.DataFrame, study: StudyInfo, profile: Profile | None) -> IsoAccuracy:
    """Return when each run first reaches what both LoRA and full fine-tuning reach.

    A task's target is the lower of the two methods' medians over seeds of their best evaluation,
    minus `study.iso_margin`, a fraction of the metric of which the source has 0.005; no rows of a
    task unless both were trained on it. Joules are of the profile's tasks alone.

    Source: "Tiny Reproduction: LoRA", iso-accuracy analysis.
    """
    energy = profile.energy if profile else EnergySource(None, "no profile")
    measured = {costs.task: costs for costs in (profile.tasks if profile else ())}
    each = curves.groupby([*KEYS, "seed"], sort=False)
    medians = each["score"].max().groupby(KEYS).median().to_dict()
    both, runs = [study.role("lora"), study.role("full_ft")], []
    for key, run in each:
        task, method = str(key[0]), str(key[1])
        if not {(task, name) for name in both} <= set(medians):
            continue
        target = min(medians[task, name] for name in both) - study.iso_margin
        where = task, method, int(run["seed"].iloc[0]), target
        found, reached = EqualScoreRun(*where, False, *[None] * 4), run[run["score"] >= target]
        if len(reached):
            first = reached.iloc[0]
            epoch, seconds = float(first["epoch"]), float(first["train_seconds"])
            cost = measured[task].energy_of(method) if task in measured else None
            joules = cost.joules_per_epoch * epoch if cost else None
            found = EqualScoreRun(*where, True, int(first["step"]), epoch, seconds, joules)
        runs.append(found)
    return IsoAccuracy(study.iso_margin, energy, tuple(runs), tuple(epoch_seconds(curves)))
