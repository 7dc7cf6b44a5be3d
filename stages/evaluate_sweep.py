"""Stage `evaluate_sweep`: score the sweep's runs."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.findings.evaluate import evaluate
from peft_study.study import load_study


def main() -> None:
    data = Path("data/prepared", load_study().sweep.task)
    scores = {
        name: evaluate(config, Path("runs/sweep", name), data)
        for name, config in read_json(Path("configs/sweep.json")).items()
    }
    write_json(Path("metrics/runs/sweep.json"), scores)
    print(f"evaluate_sweep: wrote metrics/runs/sweep.json ({len(scores)} cells)")


if __name__ == "__main__":
    run_command(main)
