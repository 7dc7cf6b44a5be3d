"""The studies of `studies/`: list them, check one, or write one into params.yaml.

`studies/opinions.yaml` is whole, and the base of all others; each of those says what it changes.
"""

import math
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from peft_study.checks import check_against_model
from peft_study.configure import configure
from peft_study.data.sources.hub import DATASETS
from peft_study.encoders.pretrained import in_hub_cache, is_hub_id
from peft_study.errors import StudyError, nearest, run_command
from peft_study.files import replacing
from peft_study.records import Record
from peft_study.resolver import locate
from peft_study.study import Study, TaskParams, check_study, load_study, read_yaml

FOLDER, PARAMS, BASE = Path("studies"), Path("params.yaml"), "opinions"


class Planned(Record):
    """Runs of one configuration: how many seeds, on how many rows, of how many optimiser steps."""

    method: str
    task: str
    params: TaskParams
    seeds: int
    rows: int | None  # None where it is not known before the files are read
    steps: int | None  # of one run


def names() -> list[str]:
    """Return the names of all studies."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def values(name: str) -> dict[str, Any]:
    """Return a study's parameters: the base's, overlaid; its tasks, and `only`, replace the base's.

    What the study trains is also what its profile measures, and profile and sweep are of its first
    task, unless its file says otherwise. Raises StudyError if there is no such study, or its
    file is no valid YAML.
    """
    if name not in names():
        raise StudyError(f"STUDY: got '{name}'; {nearest(name, names())}")
    base, overlay = map(_read, (BASE, name))
    if name == BASE:
        return base
    base["only"] = {}
    if "tasks" in overlay:
        base.pop("tasks")
    merged = _merged(base, overlay)
    _fill(merged, overlay)
    return merged


def _read(name: str) -> dict[str, Any]:
    found = read_yaml(path := FOLDER / f"{name}.yaml")
    if not isinstance(found, dict):
        raise StudyError(f"{path}: must hold a mapping of parameters, got {found!r}")
    return found


def _merged(base: Any, overlay: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(overlay, dict)):
        return overlay
    return base | {key: _merged(base.get(key), value) for key, value in overlay.items()}


def _fill(merged: Any, overlay: Any) -> None:
    """Let profile and sweep be of what the study trains, where `overlay` does not say otherwise."""
    try:
        task, lora = next(iter(merged["tasks"])), merged["lora"]
        ranks = list(dict.fromkeys([lora["r"], *merged["profile"]["ranks"]]))
        own = {"tasks": [task], "targets": lora["targets"], "ranks": ranks}
        own["bottleneck"] = merged["adapter_h"]["bottleneck"]
        for block, keys in (("profile", own), ("sweep", {"task": task})):
            said = overlay.get(block, {})
            merged[block] |= {key: value for key, value in keys.items() if key not in said}
    except (TypeError, LookupError, StopIteration):
        pass  # a block of another shape is reported when it is checked


def load(name: str) -> Study:
    """Return a study, checked. Raises as `values` and `peft_study.study.check_study`."""
    return check_study(values(name), f"studies/{name}.yaml")


def render(name: str) -> str:
    """Return the study as the text of params.yaml.

    It opens with the study's own comment and keeps those of the base, and of the study's tasks.
    """
    base, overlay = ((FOLDER / f"{study}.yaml").read_text("utf-8") for study in (BASE, name))
    if name == BASE:
        return base
    yaml, stream = YAML(), StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000
    body, changes = yaml.load(base.removeprefix(_header(base))), yaml.load(overlay)
    _set(body, values(name), changes)
    yaml.dump(body, stream)
    # New keys and lists leave the blank lines elsewhere: one before every block, and no other.
    lines = [line for line in stream.getvalue().splitlines() if line.strip()]
    spaced = [f"\n{line}" if line[0] not in " #-" and n else line for n, line in enumerate(lines)]
    return _header(overlay) + "\n".join(spaced) + "\n"


def use(name: str) -> None:
    """Write a study into params.yaml; raise StudyError if that holds edits that would be lost."""
    load(name)
    if PARAMS.is_file() and PARAMS.read_text("utf-8") not in map(render, names()):
        command = ["git", "status", "--porcelain", "--", str(PARAMS)]
        status = subprocess.run(command, capture_output=True, text=True, check=False)
        if status.returncode != 0 or status.stdout:
            raise StudyError(
                "params.yaml: holds edits that are not committed; commit them, or discard them "
                "with 'git checkout params.yaml', and run again"
            )
    with replacing(PARAMS) as temporary:
        temporary.write_text(render(name), encoding="utf-8")


def check(name: str) -> list[str]:
    """Check a study without training, and without a network; return what could not be checked.

    Raises as `load`, and StudyError if the model or the data are at hand and do not fit the
    parameters.
    """
    study, open_questions = load(name), []
    model, data = study.model, study.data
    if is_hub_id(model.name) and not in_hub_cache(model.name, model.revision):
        open_questions.append(f"model {model.name} is neither a folder nor in the hub's cache")
    else:
        check_against_model(study)
    if data.source == "hub" and not data.folder:
        open_questions.append("the hub's datasets are read by 'prepare'")
    elif data.folder and not Path(data.folder).is_dir():
        open_questions.append(f"data.folder '{data.folder}' is not there yet")
    elif not open_questions:
        configure(study)
    else:
        init = {study.mnli_init.task: study.mnli_init} if study.starters else {}
        for task, params in (study.tasks | init).items():
            locate(study, task, params)
    return open_questions


def describe(study: Study) -> dict[str, Any]:
    """Return a study's size: model, tasks, methods, runs and an estimate of optimiser steps.

    It counts the rows of the published training splits, less those that are known to be dropped;
    None where their number is not known before the files are read.
    """
    cells, cost = study.sweep.cells, planned(study)
    settings, trials = study.ledger.settings, len(study.tune.trials(1.0)) if study.tune.grid else 0
    varied = ((len(cells), "sweep of"), (len(settings), "ledger of"), (trials, "trials of each:"))
    steps = [run.seeds * run.steps for run in cost if run.steps is not None]
    return {
        "model": study.model.name,
        "tasks": list(study.tasks),
        "methods": study.methods + [f"{words} {number}" for number, words in varied if number],
        "runs": sum(run.seeds for run in cost),
        "steps": sum(steps) if len(steps) == len(cost) else None,
    }


def planned(study: Study) -> list[Planned]:
    """Return all runs of a study, those of one configuration together.

    Settings of the ledger count alone, without their intermediate runs, and trials as if each were
    as long as what the study trains.
    """
    init, seeds = study.mnli_init, len(study.seeds)
    runs: list[tuple[str, str, TaskParams, int]] = [
        (method, name, task, len(study.seeds_of(method)))
        for method in study.trained
        for name, task in study.tasks_of(method).items()
    ]
    if starting := [m for m in study.trained if {*study.tasks_of(m)} & {*study.starters}]:
        starts = ["full_ft"] if init.mode == "full_ft" else starting
        runs += [(method, init.task, init, 1) for method in starts]
    swept = study.tasks[study.sweep.task]
    runs += [("lora", study.sweep.task, swept, seeds) for _ in study.sweep.cells]
    found = [_planned(study, *run) for run in runs]
    settings = [study.varied(of, "params.yaml") for of in study.ledger.settings.values()]
    for method, name in study.ledger_cells:
        number = len(study.seeds_of(method))
        found += [_planned(of, method, name, of.tasks[name], number) for of in settings]
    for method in study.trained if study.tune.grid else ():
        for name, task in study.tasks_of(method).items():
            trials, tried = len(study.tune.trials(1.0)), len(study.tune.seeds)
            found.append(_planned(study, method, name, task, trials * tried))
    return found


def _planned(study: Study, method: str, name: str, task: TaskParams, seeds: int) -> Planned:
    of = method, name, task
    return Planned(*of, seeds, _rows(name, task), _steps(study, *of))


def listing() -> str:
    """Return all studies, a block of lines each."""
    lines = []
    for name in names():
        size = describe(load(name))
        steps = "unknown" if size["steps"] is None else f"about {size['steps']:,}"
        lines += [
            name,
            f"  model    {size['model']}",
            f"  tasks    {', '.join(size['tasks'])}",
            f"  methods  {', '.join(size['methods'])}",
            f"  runs     {size['runs']:,}; optimiser steps: {steps}",
        ]
    return "\n".join(lines)


def _rows(name: str, task: TaskParams) -> int | None:
    dataset = None if task.files else DATASETS.get(name)
    published = dataset.train_rows - (dataset.dropped or 0) if dataset else None
    return task.train_rows or published


def _steps(study: Study, method: str, name: str, task: TaskParams) -> int | None:
    rows, hyper = _rows(name, task), study.hyperparameters(method, task)
    return hyper.epochs * math.ceil(rows / hyper.batch_size) if rows else None


def _header(text: str) -> str:
    """Return the comment that opens a file."""
    return "".join(takewhile(lambda line: line[0] == "#", text.splitlines(keepends=True)))


def _set(target: Any, wanted: dict[str, Any], changes: Any) -> None:
    """Give `target`, which has comments, the values `wanted`, in the style of `changes`."""
    for key, value in wanted.items():
        whole = key in ("tasks", "only")  # one study's replace another's
        if not whole and isinstance(value, dict) and isinstance(target.get(key), dict):
            _set(target[key], value, changes.get(key) or {})
        elif key not in target or target[key] != value:
            target[key] = changes.get(key, value)


def main() -> None:
    command, name = (*sys.argv[1:], "", "")[:2]
    if command == "list":
        print(listing())
    elif command == "use":
        use(name)
        print(f"use: wrote studies/{name}.yaml over studies/{BASE}.yaml into params.yaml")
    elif command == "check" and name:
        for question in (found := check(name)):
            print(f"studies/{name}.yaml: not checked: {question}")
        print(f"studies/{name}.yaml: valid" + (", as far as it can be known here" * bool(found)))
    elif command == "check":
        study = load_study()
        configure(study)
        size = describe(study)
        print(f"params.yaml: study '{study.study}' is valid: {size['runs']} runs")
    else:
        raise StudyError(f"got '{command}'; known: list, use NAME, check, check NAME")


if __name__ == "__main__":
    run_command(main)
