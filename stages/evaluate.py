"""Stage `evaluate@<method>-<task>`: score a cell's predictions. Arguments: method and task."""

import sys
from pathlib import Path

from peft_study.analysis.evaluate import evaluate
from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    method, task = sys.argv[1:]
    config = read_json(Path(f"configs/train/{method}-{task}.json"))
    scores = evaluate(config, Path(f"runs/{method}/{task}"), Path(f"data/prepared/{task}"))
    path = Path(f"metrics/runs/{method}/{task}.json")
    write_json(path, scores)
    print(f"evaluate {method} {task}: wrote {path}")


if __name__ == "__main__":
    run_command(main)
