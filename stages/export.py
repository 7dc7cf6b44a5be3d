"""Stage `export`: the adapter of each LoRA cell's median seed, for others to load."""

import shutil
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json
from peft_study.findings.export import IN_PEFTS_FORMAT, export_adapter
from peft_study.findings.results import load_cells


def main() -> None:
    study, exports = read_json(Path("configs/report.json")), Path("exports")
    shutil.rmtree(exports, ignore_errors=True)
    exports.mkdir()
    cells = load_cells(study, Path("metrics"))
    exported = [place for place in cells if place[0] in IN_PEFTS_FORMAT]
    for method, task in exported:
        runs = Path("runs", method, task)
        export_adapter(study, cells[method, task], runs, exports / method / task)
    print(f"export: wrote {len(exported)} adapter(s) to exports/")


if __name__ == "__main__":
    run_command(main)
