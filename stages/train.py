"""Stage `train@<method>-<task>`: all seeds of one cell. Arguments: method and task."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study


def main() -> None:
    method, task = sys.argv[1:]
    cell = Cell(
        config=read_json(Path(f"configs/train/{method}-{task}.json")),
        data=Path("data/prepared", task),
        start=Path("starts", method, task),
        directory=Path("runs", method, task),
    )
    run_cells([cell], load_study().runner)


if __name__ == "__main__":
    run_command(main)
