"""Stage `evaluate@<method>-<task>`: score a cell's runs. Arguments: method and task."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.findings.evaluate import evaluate


def main() -> None:
    method, task = sys.argv[1:]
    config = read_json(Path(f"configs/train/{method}-{task}.json"))
    path = Path(f"metrics/runs/{method}/{task}.json")
    write_json(path, evaluate(config, Path("runs", method, task), Path("data/prepared", task)))
    print(f"evaluate: wrote {path}")


if __name__ == "__main__":
    run_command(main)
