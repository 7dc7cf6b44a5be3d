"""Stage `tune`: the same trials for every method, and what each is then trained with."""

from itertools import groupby
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.records.tuning import Trial, TrialRuns
from peft_study.running.jobs import run_variants
from peft_study.stage_configs import TuneConfig
from peft_study.study import load_study
from peft_study.tuning import RUNS, TUNED, Values

FOLDER, METRICS, ROWS = Path(RUNS), Path("metrics"), Path("metrics/rows/trials")


def main() -> None:
    config = read_record(Path("configs/tune.json"), TuneConfig)
    # Folders that git and DVC keep although nothing is tuned.
    for folder in (FOLDER, ROWS):
        write_json(folder / "trials.json", [trial.place for trial in config.trials])
    found = try_all(config) if config.trials else TrialRuns()
    write_json(METRICS / "runs/trials.json", found)
    chosen: dict[str, dict[str, Values]] = {method: {} for method in config.methods}
    if config.trials:
        from peft_study.findings.choosing import choose

        runs = [trial.cell.config.run for trial in config.trials]
        metrics = {run.task: run.definition.metrics[0] for run in runs}
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
    from peft_study.findings.evaluate import evaluate_variants  # slow, and not always needed

    cells = {trial.place: trial.cell for trial in config.trials}
    run_variants(config.starts, cells, FOLDER, load_study().runner)
    runs = [(trial.cell.config.run, trial) for trial in config.trials]
    listed = tuple(Trial(run.method, run.task, of.values, of.place) for run, of in runs)
    return TrialRuns(listed, evaluate_variants(cells, FOLDER, ROWS))


if __name__ == "__main__":
    run_command(main)
