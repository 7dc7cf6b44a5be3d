"""Predictions that were made elsewhere: checked against a task's rows, and laid out as a run's."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from peft_study.data import texts
from peft_study.data.sources.formats import Columns, read_table
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, system_errors
from peft_study.files import replacing, sha256, write_json
from peft_study.records import Record
from peft_study.run_config import CellConfig, PredictionsSettings

ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl")
COLUMNS = Columns((("id", "prediction", "label"), ("id", "prediction")))
CLOSE = 1e-6  # of a score as a text to the same in float32, as a share


class HeldOutRows(Record):
    """The rows of a task that are held out, in their order; labels are classes or scores."""

    ids: list[str]
    labels: list[float]


def locate(
    recipe: str, settings: PredictionsSettings, tasks: Mapping[str, Task], seeds: Sequence[int]
) -> dict[str, PredictionsSettings]:
    """Return the settings by task, with the hash of each seed's file, `<folder>/<task>/seed-<n>.*`.

    All that is known of a file before the rows of its task are is checked.

    Raises StudyError: the folder or a file is not there, or a seed has several; or as `read`.
    """
    located = {}
    with _naming(f"params.yaml: recipes.{recipe}"):
        for name, task in tasks.items():
            paths = [_file(Path(settings.folder), name, seed) for seed in seeds]
            with system_errors(settings.folder):
                found = {path.name: sha256(path) for path in paths}
            located[name] = PredictionsSettings(settings.folder, found)
            for file in found:
                read(located[name], name, file, task)
    return located


def _file(folder: Path, task: str, seed: int) -> Path:
    if not folder.is_dir():
        raise StudyError(f"folder: got '{folder}'; there is no such folder")
    paths = [folder / task / f"seed-{seed}{ending}" for ending in ENDINGS]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise StudyError(f"{found[1]}: {found[0].name} is of this seed too; keep one")
    if not found:
        raise StudyError(
            f"{paths[0]}: no such file, nor one that ends in {', '.join(ENDINGS[1:])}; add it, or "
            "name the tasks and seeds that there are in 'only'"
        )
    return found[0]


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Name the key of the parameters in what is wrong with its files."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{key}: {error}") from None


def check(
    recipe: str, settings: PredictionsSettings, name: str, task: Task, prepared: Path
) -> None:
    """Check all files of the task `name` against its rows, as prepared. Raises as `read`."""
    rows = held_out(prepared)
    with _naming(f"params.yaml: recipes.{recipe}"):
        for file in settings.sha256:
            read(settings, name, file, task, rows)


def held_out(prepared: Path) -> HeldOutRows:
    """Return the held-out rows of a task below a folder that `peft_study.data.prepare` wrote."""
    import datasets  # slow, and not needed before rows are known

    rows = datasets.load_from_disk(str(prepared))["validation"].select_columns(["id", "label"])
    return HeldOutRows(list(rows["id"]), list(rows["label"]))


def read(
    settings: PredictionsSettings,
    name: str,
    file: str,
    task: Task,
    rows: HeldOutRows | None = None,
) -> dict[str, float]:
    """Read a file of the task `name`: each row's prediction, a class or a score, by id.

    Raises StudyError, naming file and line: the file has changed since it was located, cannot be
    read, lacks a column, has an id twice, or a prediction that is none of the task's labels, or no
    finite number. With `rows`: an id is not of these, one of these is missing, or a label is not
    what it is there.
    """
    path, found, at = Path(settings.folder, name, file), dict[str, float](), dict[str, int]()
    known = dict(zip(rows.ids, rows.labels, strict=True)) if rows else {}
    with system_errors(path):
        if sha256(path) != settings.sha256[file]:
            raise StudyError(f"{path}: changed since params.yaml was checked; run again")
        for line, (identity, prediction, *label) in read_table(path, COLUMNS):
            row, place = texts.canonical(identity), f"{path} line {line}"
            if row in found:
                raise StudyError(f"{place}: id {texts.shown(row)} is in line {at[row]} already")
            found[row], at[row] = _value(f"{place}: prediction", prediction, task), line
            if rows and row not in known:
                raise StudyError(
                    f"{place}: id {texts.shown(row)} is no held-out row of task '{name}', whose "
                    f"first is '{rows.ids[0]}'; predict these rows and no others"
                )
            if label:
                own = _value(f"{place}: label", label[0], task)
                if rows and not math.isclose(own, known[row], rel_tol=CLOSE, abs_tol=CLOSE):
                    ours = task.labels[int(known[row])] if task.labels else f"{known[row]:g}"
                    raise StudyError(
                        f"{place}: label {texts.shown(str(label[0]))} of row '{row}' is "
                        f"'{ours}' in task '{name}'; predict the same rows"
                    )
    if missing := [row for row in known if row not in found]:
        raise StudyError(
            f"{path}: has no prediction for {len(missing)} of the {len(known)} held-out rows of "
            f"task '{name}', the first of them '{missing[0]}'; predict every one"
        )
    return found


def _value(place: str, value: object, task: Task) -> float:
    """Return a class, by its label or its index, or a finite score, which float32 holds."""
    text = texts.canonical(value)
    if not task.labels:
        try:
            score = float("none" if "_" in text else text)
        except ValueError:
            score = math.nan
        if abs(score) <= float(np.finfo(np.float32).max):
            return float(np.float32(score))
        raise StudyError(f"{place} {texts.shown(text)} is not a finite number")
    names = [texts.canonical(label) for label in task.labels]
    whole = text if text in names else text.removesuffix(".0")  # as pandas writes them beside a gap
    if whole in names:
        return names.index(whole)
    # Labels that are numbers themselves may not be taken for indices, nor indices for them.
    indices = [] if any(map(str.isdecimal, names)) else list(map(str, range(len(names))))
    if whole in indices:
        return int(whole)
    allowed = f" or its index, 0 to {len(names) - 1}" if indices else ""
    known = ", ".join(task.labels)
    raise StudyError(f"{place} {texts.shown(text)} is no label ({known}){allowed}")


def take(config: CellConfig, prepared: Path, directory: Path) -> int:
    """Lay out a cell's predictions in a folder `seed-<n>/` each, as runs; return their number.

    They have one evaluation, of step 0, and neither a history nor seconds. `run.json` does not know
    what was trained.

    Raises as `read`.
    """
    import pandas as pd  # slow, too

    run, settings = config.run, config.run.settings
    assert isinstance(settings, PredictionsSettings)
    rows, kind = held_out(prepared), np.int64 if run.definition.labels else np.float32
    files = {Path(name).stem: name for name in settings.sha256}
    for seed in config.seeds:
        place = f"seed-{seed}"
        found = read(settings, run.task, files[place], run.definition, rows)
        frame = pd.DataFrame(
            {
                "id": rows.ids,
                "label": np.asarray(rows.labels, kind),
                "prediction": np.asarray([found[row] for row in rows.ids], kind),
            }
        ).assign(step=0, epoch=0.0)
        with replacing(directory / place / "predictions.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        write_json(directory / place / "run.json", {"seed": seed, "trainable": None})
    return len(config.seeds)
