"""Stage `tune`: the same trials for every method, and what each is then trained with."""

from itertools import groupby
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.records.tuning import Trial, TrialRuns
from peft_study.running.jobs import Cell, run_apart
from peft_study.stage_configs import TuneConfig
from peft_study.study import load_study
from peft_study.tuning import TUNED, Values

RUNS, METRICS = Path("runs/trials"), Path("metrics")


def main() -> None:
    config = read_record(Path("configs/tune.json"), TuneConfig)
    # Folders that git and DVC keep although nothing is tuned.
    for folder in (RUNS, METRICS / "rows/trials"):
        write_json(folder / "trials.json", [trial.place for trial in config.trials])
    found = try_all(config) if config.trials else TrialRuns()
    write_json(METRICS / "runs/trials.json", found)
    chosen: dict[str, dict[str, Values]] = {method: {} for method in config.methods}
    if config.trials:
        from peft_study.findings.choosing import choose

        metrics = {of.task: of.config.run.definition.metrics[0] for of in config.trials}
        for (method, task), group in groupby(found.trials, lambda of: (of.method, of.task)):
            best = choose(list(group), found.cells, metrics[task])
            chosen[method][task] = best.values
            words = ", ".join(f"{key} {value:g}" for key, value in best.values.items())
            print(f"tune: {method} on {task}: {words}")
    TUNED.mkdir(exist_ok=True)  # a study of a sweep alone has no methods, but DVC wants a folder
    for method, values in chosen.items():
        write_json(TUNED / f"{method}.json", values)
    print(f"tune: wrote metrics/runs/trials.json ({len(config.trials)} trials), tuned/")


def try_all(config: TuneConfig) -> TrialRuns:
    """Train all trials in one pool, and score them on the rows held out for choosing."""
    from peft_study.findings.evaluate import evaluate_trials  # slow, and not always needed

    cells = [
        Cell(of.config, Path(of.data), Path(of.start) if of.start else None, RUNS / of.place)
        for of in config.trials
    ]
    run_apart(config.starts, cells, load_study().runner)
    listed = tuple(Trial(of.method, of.task, of.values, of.place) for of in config.trials)
    return TrialRuns(listed, evaluate_trials(config.trials, RUNS, METRICS))


if __name__ == "__main__":
    run_command(main)
