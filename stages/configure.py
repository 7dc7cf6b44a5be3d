"""Stage `configure`: check params.yaml and write what each stage depends on to configs/.

With --check, only check it.
"""

import sys
from pathlib import Path

from peft_study.configure import configure, write_configs
from peft_study.errors import run_command
from peft_study.study import load_study


def main() -> None:
    study = load_study()
    if sys.argv[1:] == ["--check"]:
        configure(study)
        cells, seeds = len(study.methods) * len(study.tasks), len(study.seeds)
        print(f"params.yaml: study '{study.study}' is valid: {cells} cells, {seeds} seeds each")
        return
    print(f"configure: wrote {write_configs(study, Path('configs'))} files to configs/")


if __name__ == "__main__":
    run_command(main)
