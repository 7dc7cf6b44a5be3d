"""Stage `curves`: stability over seeds, and what it takes to reach equal scores."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import write_json
from peft_study.findings.curves import (
    iso_accuracy,
    learning_curves,
    over_seeds,
    read_histories,
    stability,
)
from peft_study.findings.results import load_profile, load_study_info


def main() -> None:
    study, metrics = load_study_info(), Path("metrics")
    curves = learning_curves(study, metrics / "histories")
    equal = iso_accuracy(curves, study, load_profile())
    swept = over_seeds(read_histories(metrics / "histories/sweep.csv"), swept=True)
    write_json(metrics / "curves.json", over_seeds(curves))
    write_json(metrics / "sweep_curves.json", swept)
    write_json(metrics / "stability.json", stability(curves))
    write_json(metrics / "iso_accuracy.json", equal)
    reached = sum(run.reached for run in equal.runs)
    print(f"curves: {reached} of {len(equal.runs)} runs reach the equal score of their task")
    print("curves: wrote metrics/{curves,sweep_curves,stability,iso_accuracy}.json")


if __name__ == "__main__":
    run_command(main)
