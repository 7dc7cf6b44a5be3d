"""Stage `export`: the adapter of each LoRA cell's median seed, for others to load."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.findings.export import export
from peft_study.findings.results import load_cells, load_study_info


def main() -> None:
    study = load_study_info()
    cells, _ = load_cells(study)
    count = export(study, cells, Path("runs"), Path("init"), Path("exports"))
    print(f"export: wrote {count} adapter(s) to exports/")


if __name__ == "__main__":
    run_command(main)
