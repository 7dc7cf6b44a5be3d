"""Stage `prepare`: rows of every task, cleaned, split and tokenised, before anything is trained."""

from pathlib import Path

from peft_study.data.prepare import prepare_all
from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.stage_configs import PrepareConfigs


def main() -> None:
    configs = read_record(Path("configs/prepare.json"), PrepareConfigs)
    summaries = prepare_all(configs, Path("data/prepared"), Path("data/intermediate"))
    # Nothing may be apart, and DVC wants the folder.
    write_json(Path("data/apart/folders.json"), sorted([*configs.apart, *configs.trials]))
    for folder, summary in summaries.items():
        rows = ", ".join(f"{split['rows']} {name}" for name, split in summary["splits"].items())
        dropped = sum(summary["dropped"].values())
        shared = summary.get("mean_overlap_of_draws")
        draws = "" if shared is None else f"; two seeds' own draws share {shared:.0%} of their rows"
        wrote = f"wrote {rows} rows to {folder}/ ({dropped} dropped)"
        unknown = sum(summary.get("unknown_to_tokeniser", {}).values())
        signs = f"; {unknown} hold only signs that the tokeniser does not know" if unknown else ""
        print(f"prepare {summary['task']}: {wrote}{draws}{signs}")


if __name__ == "__main__":
    run_command(main)
