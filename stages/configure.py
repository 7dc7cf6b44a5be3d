"""Stage `configure`: check params.yaml and write what each stage depends on to configs/.

It always runs first. So it also takes the runs that lie here into the run store, since DVC deletes
what a stage wrote before it runs it again.
"""

import sys
from pathlib import Path

try:
    from peft_study.configure import write_configs
    from peft_study.errors import run_command
    from peft_study.running.store import RunStore, store_folder
    from peft_study.study import load_study
except (ImportError, SyntaxError) as error:
    sys.exit(
        f"error: '{sys.executable}', the first python on the PATH, is not the study's ({error}); "
        "run 'source .venv/bin/activate', or 'make study'"
    )


def main() -> None:
    study = load_study()
    print(f"configure: wrote {write_configs(study, Path('configs'))} files to configs/")
    store = RunStore(store_folder(), study.runner.store_gigabytes)
    if adopted := sum(store.adopt(Path(folder)) for folder in ("init", "runs")):
        print(f"configure: took {adopted} run(s) into {store.root}")


if __name__ == "__main__":
    run_command(main)
