"""Stage `evaluate@<method>`: score a method's runs. Argument: the method."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.findings.evaluate import evaluate_cells, say_unlearned
from peft_study.run_config import CellConfig


def main() -> None:
    (method,) = sys.argv[1:]
    configs = read_record(Path(f"configs/train/{method}.json"), dict[str, CellConfig])
    folders = Path("runs", method), Path("data/prepared"), Path("metrics")
    for cell in evaluate_cells(configs, *folders, method):
        say_unlearned(cell)
    print(f"evaluate: wrote metrics/{{runs,rows}}/{method}/, metrics/histories/{method}.csv")


if __name__ == "__main__":
    run_command(main)
