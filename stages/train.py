"""Stage `train@<method>`: all tasks and seeds of a method. Argument: the method."""

import sys
from pathlib import Path

from peft_study.data.predictions import take
from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.run_config import CellConfig, PredictionsSettings
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study
from peft_study.tuning import chosen_for, tuned


def main() -> None:
    (method,) = sys.argv[1:]
    configs = read_record(Path(f"configs/train/{method}.json"), dict[str, CellConfig])
    chosen = chosen_for(method)
    start, data, runs = Path("init", method, "start"), Path("data/prepared"), Path("runs", method)
    cells = [
        Cell(
            tuned(config, chosen.get(task, {})),
            data / task,
            start if config.starts else None,
            runs / task,
        )
        for task, config in configs.items()
    ]
    if any(isinstance(config.run.settings, PredictionsSettings) for config in configs.values()):
        number = sum(take(cell.config, cell.data, cell.directory) for cell in cells)
        print(f"wrote the predictions of {number} run(s) that were trained elsewhere to {runs}/")
    else:
        run_cells(cells, load_study().runner)


if __name__ == "__main__":
    run_command(main)
