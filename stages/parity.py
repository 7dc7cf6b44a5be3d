"""Stage `parity`: compare our LoRA with PEFT's and loralib's, in counts, numbers and a run."""

from pathlib import Path

from peft_study.encoders.pretrained import model_folder
from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.parity.certificate import parity
from peft_study.running import lean
from peft_study.stage_configs import ParityConfig
from peft_study.training.environment import kept_variables


def main() -> None:
    encoder = read_record(Path("configs/parity.json"), ParityConfig).encoder
    lean.settle()
    with kept_variables():
        found = parity(str(model_folder(encoder.name, encoder.revision)), encoder.name)
    write_json(Path("metrics/parity.json"), found)
    settings = sum(map(len, found.counts.values()))
    largest = max(value for compared in found.differences for value in compared.largest.values())
    print(f"parity: {settings} counts agree, largest difference {largest:.1e}")
    print("parity: wrote metrics/parity.json")


if __name__ == "__main__":
    run_command(main)
