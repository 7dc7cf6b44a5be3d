"""Which trial is chosen: all that training has to know of findings, and quick to import."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from peft_study.errors import StudyError
from peft_study.records.scores import Cell
from peft_study.records.tuning import Trial


def choose(trials: Sequence[Trial], cells: Mapping[str, Cell], metric: str) -> Trial:
    """Return the winner of the trials of one method on one task, at least one, by `metric`.

    That is the highest mean over seeds of the score that runs report, on the rows held out for
    choosing; of equals the first. A trial of which a seed failed, or which is missing from `cells`,
    cannot win. Raises StudyError where none can.
    """
    sound = [trial for trial in trials if (cell := cells.get(trial.place)) and is_whole(cell)]
    if sound:
        return max(sound, key=lambda trial: fmean(cells[trial.place].scores(metric).values()))
    method, task = trials[0].method, trials[0].task
    failures = [why for trial in trials for why in _failures(cells.get(trial.place))]
    why = f"; the first failure: {failures[0]}" if failures else ""
    raise StudyError(
        f"tune: none of the {len(trials)} trial(s) of {method} on {task} has a result for all of "
        f"its seeds{why}; list other values below 'tune' in params.yaml, such as lower learning "
        "rates"
    )


def is_whole(cell: Cell) -> bool:
    """Tell whether every seed of a cell has a score."""
    return bool(cell.seeds) and not cell.failed


def _failures(cell: Cell | None) -> list[str]:
    return list(cell.failed.values()) if cell else []
