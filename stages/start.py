"""Stage `start@<method>-<task>`: the weights that a cell starts from. Arguments: method and task.

Either a copy of the intermediate task's adapter, or nothing: the pretrained encoder. This stage is
why a new intermediate adapter retrains only the cells that start from it.
"""

import shutil
import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    method, task = sys.argv[1:]
    config = read_json(Path(f"configs/start/{method}-{task}.json"))
    directory = Path(f"starts/{method}/{task}")
    write_json(directory / "start.json", config)
    if config["intermediate"]:
        (seed,) = read_json(Path(f"init/{method}/seeds.json"))
        for file in sorted(Path(f"init/{method}/seed-{seed}/adapter").iterdir()):
            shutil.copyfile(file, directory / file.name)
    start = "the intermediate task's adapter" if config["intermediate"] else "the encoder alone"
    print(f"start {method} {task}: wrote {directory}/ ({start})")


if __name__ == "__main__":
    run_command(main)
