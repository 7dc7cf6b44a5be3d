"""Stage `profile`: time, memory, latency and energy of every method, with nothing beside it.

A file called `profile.py` here would be taken for the standard library's module of that name.
"""

import sys
import time
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.stage_configs import ProfileConfig


def main() -> None:
    config = read_record(Path("configs/profile.json"), ProfileConfig)
    if not config.tasks:
        write_json(Path("metrics/profile.json"), None)
        print("profile: profile.rounds is 0, so nothing is measured")
        return
    # The processes that measure memory, or read counters, import this file again: not all of it.
    from peft_study.profiling.profile import profile
    from peft_study.training.environment import kept_variables

    clock = time.perf_counter()
    with kept_variables():
        found = profile(config, Path("data/prepared"))
    write_json(Path("metrics/profile.json"), found)
    if (share := found.machine.other_cpu_share) > 0.1:
        print(
            f"warning: other programs used {share:.0%} of the processors; run it again when the "
            "machine is idle: dvc repro --force --single-item profile",
            file=sys.stderr,
        )
    print(f"profile: wrote metrics/profile.json, {time.perf_counter() - clock:.0f} s")


if __name__ == "__main__":
    run_command(main)
