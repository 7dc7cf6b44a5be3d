"""Stage `mnli_init@<method>`: train the intermediate task once. Argument: the method."""

import sys
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.training.runner import run_seeds


def main() -> None:
    (method,) = sys.argv[1:]
    config = read_json(Path(f"configs/mnli_init/{method}.json"))
    directory = Path(f"init/{method}")
    write_json(directory / "seeds.json", config["seeds"])
    if config["seeds"]:
        run_seeds(config, config["seeds"], Path("data/intermediate"), None, directory, workers=1)
    else:
        print(f"mnli_init {method}: no task starts from the intermediate task, nothing to train")


if __name__ == "__main__":
    run_command(main)
