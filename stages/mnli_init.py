"""Stage `mnli_init`: train the intermediate task, once per method or once for all."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.running.jobs import Cell, run_cells
from peft_study.study import load_study


def main() -> None:
    cells = []
    for method, config in read_json(Path("configs/mnli_init.json")).items():
        directory = Path("init", method)
        write_json(directory / "seeds.json", config["seeds"])
        if config["seeds"]:
            cells.append(Cell(config, Path("data/intermediate"), None, directory))
    if cells:
        run_cells(cells, load_study().runner)
    else:
        print("mnli_init: no task starts from the intermediate task, nothing to train")


if __name__ == "__main__":
    run_command(main)
