"""Stage `sweep`: our LoRA at every rank with every set of weights."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.run_config import CellConfig
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study


def main() -> None:
    configs = read_record(Path("configs/sweep.json"), dict[str, CellConfig])
    data, runs = Path("data/prepared"), Path("runs/sweep")
    write_json(runs / "cells.json", sorted(configs))
    cells = [Cell(c, data / c.run.task, None, runs / name) for name, c in configs.items()]
    run_cells(cells, load_study().runner)


if __name__ == "__main__":
    run_command(main)
