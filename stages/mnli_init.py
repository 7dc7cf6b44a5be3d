"""Stage `mnli_init`: train the intermediate task, and lay out what each method starts from."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record
from peft_study.running.jobs import train_starts
from peft_study.stage_configs import InitConfig
from peft_study.study import load_study


def main() -> None:
    config = read_record(Path("configs/mnli_init.json"), InitConfig)
    train_starts(config, Path("data/intermediate"), Path("init"), load_study().runner)


if __name__ == "__main__":
    run_command(main)
