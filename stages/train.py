"""Stage `train@<method>-<task>`: all seeds of one cell. Arguments: the method and the task."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json
from peft_study.study import load_study
from peft_study.training.runner import run_seeds


def main() -> None:
    method, task = sys.argv[1:]
    config = read_json(Path(f"configs/train/{method}-{task}.json"))
    run_seeds(
        config,
        config["seeds"],
        data=Path(f"data/prepared/{task}"),
        start=Path(f"starts/{method}/{task}"),
        directory=Path(f"runs/{method}/{task}"),
        workers=load_study().runner.workers,
    )


if __name__ == "__main__":
    run_command(main)
