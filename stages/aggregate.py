"""Stage `aggregate`: from the scores of all runs to the study's summary and statistics."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import write_json
from peft_study.findings.page.papers import readme_table
from peft_study.findings.results import (
    Results,
    load_cells,
    load_study_info,
    load_sweep,
    load_trial_values,
    load_trials,
    load_untuned,
    load_values,
)
from peft_study.findings.statistics import summarise, summary, sweep_rows
from peft_study.findings.tuning import tuning
from peft_study.findings.wording import missing


def main() -> None:
    study, metrics = load_study_info(), Path("metrics")
    cells, gaps = load_cells(study)
    sweep = load_sweep()
    statistics = summarise(study, cells, gaps, sweep, load_values)
    write_json(metrics / "statistics.json", statistics)
    write_json(metrics / "summary.json", summary(study, statistics))
    write_json(metrics / "sweep.json", list(sweep_rows(sweep)))
    runs = load_trials()
    tuned = tuning(study, runs, cells, load_untuned(), load_trial_values, load_values)
    write_json(metrics / "tuning.json", tuned if runs.trials else None)
    if cells:
        print(readme_table(Results(study, statistics, cells)))
    print(f"aggregate: {missing(gaps, study) or 'every cell has results'}")
    names = ("summary", "statistics", "sweep", "tuning")
    print(f"aggregate: wrote {', '.join(f'metrics/{name}.json' for name in names)}")


if __name__ == "__main__":
    run_command(main)
