"""Stage `evaluate_sweep`: score the sweep's runs."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.findings.evaluate import evaluate_sweep, say_unlearned
from peft_study.run_config import CellConfig


def main() -> None:
    configs = read_record(Path("configs/sweep.json"), dict[str, CellConfig])
    for cell in evaluate_sweep(configs, Path("runs/sweep"), Path("data/prepared"), Path("metrics")):
        say_unlearned(cell)
    print(f"evaluate_sweep: wrote metrics/runs/sweep.json ({len(configs)} cells)")


if __name__ == "__main__":
    run_command(main)
