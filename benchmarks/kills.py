"""Kill a cell's training at random moments and run the same command again: are the files equal?

Every trial starts `stages/train.py` in a fresh copy of what it needs, kills all its processes with
signal 9 at a moment drawn from the time that an uninterrupted one takes, and starts it again. What
it then wrote, timings apart, is compared with what the uninterrupted one wrote. A trial that had
ended before its moment is compared, too, but does not count as one of the kills.

    python benchmarks/kills.py --method lora --task editorial_polarity --kills 20
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from cells import environment, lay_out, options, read_cell
from peft_study.errors import run_command
from peft_study.run_config import CellConfig


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--checkpoint-seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    arguments = parser.parse_args()
    cell, moments = read_cell(arguments.method, arguments.task), random.Random(arguments.seed)
    trials = kills = equal = 0
    with tempfile.TemporaryDirectory() as place:
        whole = prepare(cell, arguments.checkpoint_seconds, Path(place, "whole"))
        clock = time.monotonic()
        complete(start(cell, whole))
        seconds = time.monotonic() - clock
        wanted = results(whole)
        print(f"uninterrupted: {seconds:.0f} s, {len(wanted)} files", flush=True)
        while kills < arguments.kills:
            trials += 1
            folder = prepare(cell, arguments.checkpoint_seconds, Path(place, str(trials)))
            process, moment = start(cell, folder), moments.uniform(0, seconds)
            time.sleep(moment)
            running = process.poll() is None
            if running:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += running
            store = folder / ".run_store"
            finished = len(list(store.glob("runs/*")))
            checkpoints = len(list(store.glob("unfinished/*/*.safetensors")))
            complete(start(cell, folder))
            same = results(folder) == wanted
            equal += same
            killed = f"killed after {moment:.1f} s" if running else f"ended before {moment:.1f} s"
            left = f"{finished} finished runs and {checkpoints} checkpoints left"
            print(f"{trials}: {killed}, {left}: {'equal' if same else 'NOT EQUAL'}", flush=True)
    print(f"{equal} of {trials} trials equal, {kills} of them killed")
    sys.exit(equal != trials)


def prepare(cell: CellConfig, interval: float, folder: Path) -> Path:
    """Copy what the stage needs into a new `folder`, and set the interval of its checkpoints."""
    folder.mkdir()
    lay_out(cell, folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["runner"]["checkpoint_seconds"] = interval
    yaml.dump(params, folder / "params.yaml")
    return folder


def start(cell: CellConfig, folder: Path) -> subprocess.Popen[str]:
    """Start the stage in `folder`, as the leader of a group of processes."""
    return subprocess.Popen(
        [sys.executable, "stages/train.py", cell.run.method],
        cwd=folder,
        env=environment(folder),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def complete(process: subprocess.Popen[str]) -> None:
    """Wait for the end of `process`.

    Raises:
        SystemExit: it failed; with what it printed.
    """
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the stage failed:\n{output}")


def results(folder: Path) -> dict[str, bytes]:
    """Return what the stage wrote, by its place, without what holds seconds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "runs").rglob("*")
        if path.is_file() and path.name not in ("timings.csv", "manifest.json")
    }


if __name__ == "__main__":
    run_command(main)
