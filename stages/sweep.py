"""Stage `sweep`: our LoRA at every rank with every set of weights."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study


def main() -> None:
    study, configs = load_study(), read_json(Path("configs/sweep.json"))
    data, directory = Path("data/prepared", study.sweep.task), Path("runs/sweep")
    write_json(directory / "cells.json", sorted(configs))
    if configs:
        cells = [Cell(config, data, None, directory / name) for name, config in configs.items()]
        run_cells(cells, study.runner)
    else:
        print("sweep: no ranks, nothing to train")


if __name__ == "__main__":
    run_command(main)
