"""Stage `train@<method>`: all tasks and seeds of a method. Argument: the method."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.run_config import CellConfig
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study


def main() -> None:
    (method,) = sys.argv[1:]
    configs = read_record(Path(f"configs/train/{method}.json"), dict[str, CellConfig])
    start, data, runs = Path("init", method, "start"), Path("data/prepared"), Path("runs", method)
    cells = [
        Cell(config, data / task, start if config.starts else None, runs / task)
        for task, config in configs.items()
    ]
    run_cells(cells, load_study().runner)


if __name__ == "__main__":
    run_command(main)
