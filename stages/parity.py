"""Stage `parity`: compare our LoRA with PEFT's and loralib's, in counts and in numbers."""

from pathlib import Path

from peft_study.encoders.pretrained import model_folder
from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.parity import parity


def main() -> None:
    config = read_json(Path("configs/parity.json"))
    folder = model_folder(config["model"], config["model_revision"])
    found = parity(str(folder)) | {"model": config["model"]}
    write_json(Path("metrics/parity.json"), found)
    settings = sum(map(len, found["counts"].values()))
    largest = max(value for values in found["differences"].values() for value in values.values())
    print(f"parity: {settings} counts agree, largest difference {largest:.1e}")
    print("parity: wrote metrics/parity.json")


if __name__ == "__main__":
    run_command(main)
