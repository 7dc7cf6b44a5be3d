"""Stages `prepare@<task>` and `prepare_intermediate`: rows, cleaned, split and tokenised.

Arguments: the configuration file and the folder to write.
"""

import sys
from pathlib import Path

from peft_study.data.prepare import prepare
from peft_study.errors import run_command
from peft_study.files import read_json, write_json


def main() -> None:
    config_path, directory = map(Path, sys.argv[1:])
    config = read_json(config_path)
    if not config:
        write_json(directory / "summary.json", {})
        print("prepare: no task starts from the intermediate task, nothing to prepare")
        return
    summary = prepare(config, directory)
    rows = ", ".join(f"{split['rows']} {name}" for name, split in summary["splits"].items())
    dropped = sum(summary["dropped"].values())
    print(f"prepare {summary['task']}: wrote {rows} rows to {directory}/ ({dropped} dropped)")


if __name__ == "__main__":
    run_command(main)
