"""Stage `ready`: all data is prepared. Training waits for it, so bad data stops a study first.

What it writes never changes: data that changed retrains the cells that read it and no other.
"""

from pathlib import Path

from peft_study.data.prepare import check_intermediate
from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    starters = read_json(Path("configs/ready.json"))["starters"]
    prepared = {name: Path("data/prepared", name) for name in starters}
    check_intermediate(Path("data/intermediate"), prepared)
    write_json(Path("data/ready.json"), {"ready": True})


if __name__ == "__main__":
    run_command(main)
